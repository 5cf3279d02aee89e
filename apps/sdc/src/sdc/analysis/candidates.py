"""A model at one setting: compressed into a temporary folder, measured, drawn with, forgotten."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sdc.analysis.recording import Recorder, Samples
from sdc.analysis.settings import Setting
from sdc.analysis.subjects import Subject, Watch

if TYPE_CHECKING:
    from sd_compress import StoredWeight
    from sd_compress.report import Candidate, Part
    from sd_mil import Package
    from sd_runtime import Model


@dataclass(slots=True)
class Stored:
    """What the packages of one component take: ``bytes`` of all files, and every weight by its name."""

    bytes: int = 0
    weights: dict[str, StoredWeight] = field(default_factory=dict)

    def add(self, folder: Path, package: Package) -> None:
        """One more package; weights of the same name in two chunks are taken for one."""
        from sd_compress import stored_weights

        self.bytes += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.weights |= {weight.name: weight for weight in stored_weights(package.program)}

    @property
    def bits_per_weight(self) -> float:
        """The average over all elements, tables included."""
        elements = sum(weight.elements for weight in self.weights.values())
        return 8 * sum(weight.stored_bytes for weight in self.weights.values()) / max(elements, 1)


@dataclass(frozen=True)
class Looked:
    """A candidate for the report, and what its components take."""

    candidate: Candidate
    stored: Mapping[str, Stored]


def look_at_original(subject: Subject, samples: Mapping[str, Samples], watch: Watch) -> tuple[Looked, str]:
    """The model as it is, and the arithmetic it was run in; ``samples`` fill with what it was run on."""
    from sd_compress.report import Candidate, Part
    from sd_mil import read_package

    arithmetic = ""

    def opened(component: str) -> Model:
        nonlocal arithmetic
        model = subject.open(component, lambda _, package: package)
        arithmetic = getattr(model, "arithmetic", arithmetic)
        return Recorder(model, samples[component]) if component in samples else model

    pictures = subject.exercise(opened, watch)
    stored = {component: Stored() for component in subject.components}
    for component, sizes in stored.items():
        for folder in subject.folders(component):
            sizes.add(folder, read_package(folder))
    parts = tuple(
        Part(component, "as it came", sizes.bits_per_weight, sizes.bytes, ())
        for component, sizes in stored.items()
    )
    return Looked(Candidate("original", "original", "", parts, pictures), stored), arithmetic


def look_at(
    subject: Subject,
    setting: Setting,
    samples: Mapping[str, Samples],
    unchanged: dict[str, Model],
    watch: Watch,
) -> Looked:
    """The model at a setting, measured on ``samples`` of every component.

    ``unchanged`` holds the components that no setting compresses, once they are loaded.

    Raises:
        sd_compress.CompressionError: a scheme does not fit the program.
        OSError: the temporary folder is full.
    """
    from sd_compress.report import Candidate

    with _scratch() as folder, own_cache(folder):
        attempt = Attempt(subject, setting, samples, unchanged, watch, folder)
        pictures = _drawn(subject, attempt, watch)
        for component in subject.components:
            if component not in attempt.parts:
                attempt.open(component)
        parts = tuple(attempt.parts[component] for component in subject.components)
        candidate = Candidate(setting.name, setting.kind, setting.method, parts, pictures)
        return Looked(candidate, attempt.stored)


def measure(
    subject: Subject, component: str, setting: Setting, samples: Mapping[str, Samples], watch: Watch
) -> Part:
    """One component at a setting, on its samples alone: nothing is drawn.

    Raises:
        sd_compress.CompressionError, OSError: see :func:`look_at`.
    """
    with _scratch() as folder, own_cache(folder):
        attempt = Attempt(subject, setting, samples, {}, watch, folder)
        attempt.open(component)
        return attempt.parts[component]


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder; on Windows mapped files cannot be removed, and are left to the system."""
    with tempfile.TemporaryDirectory(prefix="sdc-analyze-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _drawn(subject: Subject, attempt: Attempt, watch: Watch) -> tuple[bytes, ...]:
    """The pictures; none if a network computes what is no number any more, which its dB say, too."""
    from sd_runtime import NumericsError

    try:
        return subject.exercise(attempt.open, watch) if subject.drawing else ()
    except NumericsError:
        return ()


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """Let the weights of models that are looked at once push no others out of the user's cache."""
    before = os.environ.get("SD_MIL_CACHE")
    os.environ["SD_MIL_CACHE"] = before if before == "off" else str(folder / "cache")
    try:
        yield
    finally:
        if before is None:
            del os.environ["SD_MIL_CACHE"]
        else:
            os.environ["SD_MIL_CACHE"] = before


@dataclass
class Attempt:
    """The components of a subject at one setting: each is compressed once, and measured when first opened.

    A pipeline that is short of memory opens some of them again.
    """

    subject: Subject
    setting: Setting
    samples: Mapping[str, Samples]
    unchanged: dict[str, Model]
    watch: Watch
    folder: Path
    parts: dict[str, Part] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)
    _schemes: dict[str, Counter[str]] = field(default_factory=dict)
    _written: dict[str, Package] = field(default_factory=dict)

    def open(self, component: str) -> Model:
        """The component, compressed if it is one of those to compress."""
        if component not in self.subject.components:
            if component not in self.unchanged:
                self.unchanged[component] = self.subject.open(component, lambda _, package: package)
            return self.unchanged[component]
        model = self.subject.open(component, self._compressed)
        if component not in self.parts:
            self.parts[component] = self._measured(component, model)
        return model

    def _compressed(self, component: str, package: Package) -> Package:
        if package.path not in self._written:
            self.watch(f"compressing {component}")
            self._written[package.path] = self._write(component, package)
        return self._written[package.path]

    def _write(self, component: str, package: Package) -> Package:
        """Package to package, through the disk, as it would be shipped."""
        from sd_compress import compress_package, optimal_palette
        from sd_mil import read_package

        sizes = self.stored.setdefault(component, Stored())
        schemes = self._schemes.setdefault(component, Counter())
        recipe = self.setting.recipe(package.program)
        if not recipe.schemes:
            sizes.add(Path(package.path), package)
            return package
        place = Path(tempfile.mkdtemp(dir=self.folder)) / f"{Path(package.path).stem}.mlpackage"

        def tell(_: str, done: int, total: int, __: str) -> None:
            self.watch(f"compressing {component}, {100 * done // max(total, 1)} %")

        assign = self.setting.assigns.get(component, optimal_palette)
        report = compress_package(package.path, place, recipe, assign=assign, progress=tell)
        written = read_package(place)
        sizes.add(place, written)
        schemes.update(_words(weight.scheme) for weight in report.weights if not weight.kept)
        return written

    def _measured(self, component: str, model: Model) -> Part:
        from sd_compress import SignalToNoise
        from sd_compress.report import OutputSnr, Part

        meter = SignalToNoise()
        for sample in self.samples[component]:
            self.watch(f"measuring {component}")
            meter.add(sample.outputs, model.predict(sample.inputs))
        sizes = self.stored[component]
        outputs = tuple(OutputSnr(name, snr) for name, snr in meter.decibels().items())
        summary = _summary(self._schemes[component])
        return Part(component, summary, sizes.bits_per_weight, sizes.bytes, outputs)


def _words(scheme: object) -> str:
    """``4-bit palette``, as ``sdc inspect`` has it; other schemes as their class is called."""
    bits = getattr(scheme, "nbits", None)
    return f"{bits}-bit palette" if bits is not None else type(scheme).__name__.lower()


def _summary(counted: Counter[str]) -> str:
    """``118 × 4-bit palette``; where there are several, the most frequent first."""
    if not counted:
        return "nothing compressed"
    return ", ".join(f"{count} × {words}" for words, count in counted.most_common())
