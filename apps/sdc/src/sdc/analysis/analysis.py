"""From a subject and settings to the report."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

from sdc.analysis.calibrating import Calibration
from sdc.analysis.candidates import Looked, look_at, look_at_original, measure
from sdc.analysis.recording import Samples
from sdc.analysis.settings import Setting
from sdc.analysis.subjects import Subject, Watch
from sdc.console import peak_memory, printable

if TYPE_CHECKING:
    from sd_compress.report import Candidate, Environment, LayerRow, Report
    from sd_runtime import Model

#: Predictions of each component that are repeated at every setting.
MOST_SAMPLES: Final = 12
_RELEASES = ("stable-diffusion-coreml", "sd-compress", "sd-mil", "openvino", "numpy")
#: What the converters put behind the name of a module to name its weight.
_PARAMETER = re.compile(r"[._](weight|bias)(_to_fp16|_to_fp32)?$")


@dataclass(frozen=True)
class Analysis:
    """A report, and the settings that were looked at: those asked for, and what was searched."""

    report: Report
    settings: tuple[Setting, ...]


def analyze(
    subject: Subject,
    settings: Iterable[Setting],
    *,
    wanted_snr: float,
    watch: Watch,
    calibration: Calibration | None = None,
) -> Analysis:
    """Look at the original and at every setting, one after the other; ``watch`` is told what is being done.

    ``calibration`` knows how sensitive each layer is: with it, a recipe for ``wanted_snr`` is searched.

    Raises:
        click.ClickException: a component returns nothing that could be measured.
        sd_compress.CompressionError: a scheme does not fit the model.
        sd_bundle.BundleError, sd_mil.SdMilError: the model is damaged, or the engine cannot run it.
    """
    from sd_compress.report import FORMAT, VERSION, Report

    began = time.perf_counter()
    samples = {component: Samples(MOST_SAMPLES) for component in subject.components}
    original, arithmetic = look_at_original(subject, samples, _named("original", watch))
    check_outputs(samples)
    looking = _Looking(subject, samples, watch)
    done = [(setting, looking.at(setting)) for setting in settings]
    if calibration is not None and (mixed := looking.search(calibration, wanted_snr)) is not None:
        done.append((mixed, looking.at(mixed)))
    looked = [original, *(one for _, one in done)]
    candidates = tuple(one.candidate for one in looked)
    drawing = subject.drawing
    report = Report(
        format=FORMAT,
        version=VERSION,
        model=subject.name,
        components=subject.components,
        prompts=drawing.prompts if drawing else (),
        seed=drawing.seed if drawing else 0,
        num_inference_steps=drawing.num_inference_steps if drawing else 0,
        samples={component: len(kept) for component, kept in samples.items()},
        candidates=candidates,
        wanted_snr=wanted_snr,
        chosen=chosen(candidates, wanted_snr),
        layers=tuple(layers(looked, calibration)),
        sensitivity=calibration.described() if calibration else None,
        environment=environment(arithmetic),
        seconds=time.perf_counter() - began,
        peak_memory=peak_memory(),
    )
    return Analysis(report, tuple(setting for setting, _ in done))


def check_outputs(samples: Mapping[str, Samples]) -> None:
    """Without numbers to compare, every candidate would seem to be as good as the original."""
    for component, kept in samples.items():
        if not any(sample.outputs for sample in kept):
            raise click.ClickException(
                f"expected floating point outputs of {component} to measure, got none: it returns others, or "
                "was not run"
            )


@dataclass(frozen=True)
class _Looking:
    """What is the same for all settings."""

    subject: Subject
    samples: Mapping[str, Samples]
    watch: Watch
    unchanged: dict[str, Model] = field(default_factory=dict)

    def at(self, setting: Setting) -> Looked:
        return look_at(self.subject, setting, self.samples, self.unchanged, _named(setting.name, self.watch))

    def search(self, calibration: Calibration, wanted_snr: float) -> Setting | None:
        """The smallest recipe that keeps the dB on the samples; None if none does, which is said."""
        from sd_compress import BudgetError

        def measured(component: str, setting: Setting) -> float:
            part = measure(self.subject, component, setting, self.samples, _named("searching", self.watch))
            return math.inf if part.snr is None else part.snr

        try:
            return calibration.mixed(wanted_snr, measured)
        except BudgetError as error:
            click.echo(printable(f"sdc: note: mixed bits left out: {error}"), err=True)
            return None


def _named(candidate: str, watch: Watch) -> Watch:
    return lambda words: watch(f"{candidate}: {words}")


#: Times the smallest size, up to which another counts as being as small.
_AS_SMALL = 1.01


def chosen(candidates: Sequence[Candidate], wanted_snr: float) -> str | None:
    """The smallest that keeps the signal to noise; None if none does.

    Of those that are as small, the one with the most dB: a plan is chosen for what was measured of it.
    """
    fitting = [one for one in candidates if one.kind != "original" and one.keeps(wanted_snr)]
    if not fitting:
        return None
    least = min(one.stored_bytes for one in fitting)
    small = [one for one in fitting if one.stored_bytes <= _AS_SMALL * least]
    return max(small, key=lambda one: (math.inf if one.snr is None else one.snr, -one.stored_bytes)).name


def layers(looked: Sequence[Looked], calibration: Calibration | None = None) -> Iterator[LayerRow]:
    """Every weight that lies in a file, with what it takes at each candidate."""
    from sd_compress.report import LayerRow

    original = looked[0]
    for component, stored in original.stored.items():
        known = calibration.sensitivities(component) if calibration else {}
        for name, weight in stored.weights.items():
            yield LayerRow(
                weight=name,
                component=component,
                module=_PARAMETER.sub("", name),
                op=weight.op,
                shape=weight.shape,
                elements=math.prod(weight.shape),
                stored=_taken(looked, component, name),
                sensitivity=known.get(name, {}),
            )


def _taken(looked: Sequence[Looked], component: str, weight: str) -> Mapping[str, int]:
    """Bytes of a weight at every candidate that has it under that name."""
    found = ((one.candidate.name, one.stored[component].weights.get(weight)) for one in looked)
    return {name: stored.stored_bytes for name, stored in found if stored is not None}


def environment(arithmetic: str) -> Environment:
    """Releases, system and arithmetic of this run."""
    from sd_compress.report import Environment

    releases = {"Python": platform.python_version()}
    for name in _RELEASES:
        try:
            releases[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Environment(
        releases, f"{platform.system()} {platform.machine()} ({sys.byteorder}-endian)", arithmetic
    )
