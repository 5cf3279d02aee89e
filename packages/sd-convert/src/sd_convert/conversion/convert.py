"""The whole way: a checkpoint in, a bundle out, one component in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

from sd_bundle import BundleComponent, Draft, FileHashes, new_bundle

from sd_convert.checkpoint.checkpoint import Checkpoint
from sd_convert.components import KINDS, ComponentKind, Part, chosen_parts, load_libraries
from sd_convert.components.metadata import model_version
from sd_convert.facts import every_size

from .background import Background
from .bundle import bundle_component, copy_files, model_facts, provenance
from .cache import ConversionCache
from .every_size import EverySize, SharedComponent, image_size, write_all
from .like import Likeness
from .limits import check_space, limits_named
from .lowered import LoweredComponent, PackedComponent
from .memory import collect, collector_paused, peak_memory
from .options import ConversionOptions
from .programs import PreparedComponent, Programs, Wanted
from .stores import FOLDER, compressed, file_name
from .transform import Transform


@dataclass(frozen=True, slots=True)
class ComponentReport:
    """One network converted.

    ``seconds``: its own work; writing one network overlaps with the work on the next, so they add up to more
    than the whole. ``peak_memory``: the process' high-water mark after it, in bytes. ``precision``: float16,
    or float32 and ``reason`` why. ``program``: where its program was kept (``the cache``, ``sd-convert``,
    the path of a bundle), None for a new one. ``sizes``: of pictures that it has networks for, which share
    their weights; ``variants``: what tells these apart, where there are several; ``package`` is the first
    one's, ``bytes`` what all of them take.
    """

    name: str
    package: str
    seconds: float
    bytes: int
    peak_memory: int | None
    precision: str
    reason: str | None
    program: str | None
    sizes: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()

    @property
    def is_reused(self) -> bool:
        """Whether its program was kept, so that only weights had to be written."""
        return self.program is not None


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """A conversion done: ``seconds`` is all of it, ``loading_seconds`` what importing libraries took."""

    bundle: Path
    components: tuple[ComponentReport, ...]
    loading_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Work on ``component`` begins (``report`` is None) or is done; ``index`` of ``total`` were before."""

    component: str
    index: int
    total: int
    report: ComponentReport | None = None


OnProgress: TypeAlias = Callable[[Progress], None]


def convert(
    checkpoint: Checkpoint,
    output: str | Path,
    options: ConversionOptions | None = None,
    *,
    progress: OnProgress | None = None,
    cache: ConversionCache | None = None,
    kinds: Iterable[ComponentKind] = KINDS,
    transform: Transform | None = None,
    like: Likeness | None = None,
) -> ConversionReport:
    """Convert the components of ``checkpoint`` and write the bundle ``output``.

    The bundle appears when it is complete. On any exception, Ctrl-C included, what was at ``output`` stays
    as it was, and nothing is left beside it; what a killed process left there is cleared away. ``cache``:
    where to look for, and keep, everything but the weights; None does without. ``kinds``: what its components
    are; others than ``KINDS`` take the same ones in :func:`sd_convert.open_checkpoint`. ``transform``: what
    is done to each program before it is written, such as compressing its weights. ``like``: a bundle whose
    options and programs are taken, so that weights are all that is new (:class:`~sd_convert.Likeness`).

    Raises:
        LikeError: the checkpoint, or ``options``, and that bundle differ; the first difference.
        CheckpointError, UnsupportedArchitectureError, OptionsError, LoweringError: see ``sd_convert.errors``.
        LimitError: disk or memory do not suffice.
        sd_bundle.OutputExistsError: ``output`` exists and is not to be overwritten, or is no bundle.
    """
    options, began = options or ConversionOptions(), perf_counter()
    options = options if like is None else like.options(options)
    parts = chosen_parts(checkpoint, options, kinds)
    names, facts = tuple(part.name for part in parts), parts[0].facts
    stores = () if like is None else (like.programs,)
    sizes = every_size(facts, options)
    programs = EverySize(tuple(Programs(one, options, cache, stores) for one in sizes))
    if like is not None:
        like.check(programs, parts)
    model = replace(
        model_facts(facts, programs.sizes, model_version(facts, options), names), recipe=options.recipe
    )
    hash_file = FileHashes() if cache is None else cache.hash_file
    origin = provenance(checkpoint, names, hash_file)
    with (
        limits_named(Path(output)),
        new_bundle(output, model, provenance=origin, overwrite=options.overwrite) as draft,
        collector_paused(),
    ):
        copy_files(checkpoint, draft, names)
        wanted = tuple(map(programs.wanted, parts))
        loading = _load(one.part.kind for one in wanted if not one.is_kept)
        reports = _Work(programs, draft, wanted, progress, transform, like).run()
    return ConversionReport(Path(output), reports, loading, perf_counter() - began)


def _load(kinds: Iterable[ComponentKind]) -> float:
    """Import what lowering components of ``kinds`` takes; the seconds that it took."""
    began, missing = perf_counter(), tuple(kinds)
    if missing:
        load_libraries(missing)
        collect()
    return perf_counter() - began


#: A component's program, or those of all sizes.
_Network: TypeAlias = LoweredComponent | PackedComponent | SharedComponent


@dataclass(frozen=True, slots=True)
class _Job:
    """A component whose ``program`` is there, after ``seconds``, and whose packages are being written."""

    entry: BundleComponent
    paths: tuple[Path, ...]
    prepared: tuple[PreparedComponent, ...]
    program: _Network
    seconds: float
    written: Future[float]

    @property
    def component(self) -> str:
        """Its name."""
        return self.entry.name


@dataclass(slots=True)
class _Work:
    """Programs in this thread, and packages behind its back.

    Cached programs first, the smallest component of all first, so that something is written while the others
    are read; then those to be lowered, the largest first.
    """

    programs: EverySize
    draft: Draft
    wanted: tuple[Wanted, ...]
    progress: OnProgress | None
    transform: Transform | None
    like: Likeness | None
    jobs: list[_Job] = field(default_factory=list)
    reports: dict[str, ComponentReport] = field(default_factory=dict)

    def run(self) -> tuple[ComponentReport, ...]:
        """Write every component; the reports come in the usual order."""
        names = [wanted.part.name for wanted in self.wanted]
        with Background() as flushing, Background() as writing:
            for wanted in sorted(self.wanted, key=_turn):
                self._tell(Progress(wanted.part.name, len(self.reports), len(names)))
                self._start(wanted, writing, flushing)
                self._report(wait=False)
            self._report(wait=True)
        self.draft.components.sort(key=lambda entry: names.index(entry.name))
        return tuple(self.reports[name] for name in names)

    def _start(self, wanted: Wanted, writing: Background, flushing: Background) -> None:
        began, part, options = perf_counter(), wanted.part, self.programs.first.options
        prepared = self.programs.prepared(wanted)
        if self.like is not None:
            self.like.check_precision(part, prepared[0])
        images = (image_size(part.facts, one.sizes) for one in self.programs.of(part))
        ports = (one.ports for one in prepared)
        entry = bundle_component(
            part.kind, zip(images, self.programs.places(part), ports, strict=True), options
        )
        program, entry = self._transformed(self._joined(part, prepared), entry)
        if self.transform is None:
            self._keep({key: content for one in prepared for key, content in one.kept.items()})
        pending = sum(job.program.weight_bytes for job in self.jobs if not job.written.done())
        check_space(self.draft.folder, pending + program.weight_bytes)
        paths = self.draft.add_packages(entry)
        written = writing.submit(lambda: self._write(program, paths, writing.check))
        flushing.submit(lambda: _flush(paths, written))
        self.jobs.append(_Job(entry, paths, prepared, program, perf_counter() - began, written))

    def _joined(self, part: Part, prepared: tuple[PreparedComponent, ...]) -> _Network:
        return prepared[0].program if len(prepared) == 1 else self.programs.joined(part, prepared)

    def _keep(self, kept: Mapping[str, bytes]) -> None:
        """Put programs without weights into the bundle, for those that are to be like it."""
        for key, content in kept.items():
            self.draft.add_file(f"{FOLDER}/{file_name(key)}", compressed(content))

    def _transformed(self, program: _Network, entry: BundleComponent) -> tuple[_Network, BundleComponent]:
        if self.transform is None:
            return program, entry
        lowered = program.lowered()
        done = self.transform(entry, lowered.program)
        for relative, content in done.files.items():
            self.draft.add_file(relative, content)
        return replace(lowered, program=done.program), replace(entry, compression=done.compression)

    def _write(self, program: _Network, paths: tuple[Path, ...], check: Callable[[], None]) -> float:
        """Write the packages; the seconds that it took."""
        began = perf_counter()
        for written in write_all(program, paths, check):
            for relative, sha256 in written.sha256.items():
                self.draft.add_hash(f"{written.path.name}/{relative}", sha256)
        return perf_counter() - began

    def _report(self, *, wait: bool) -> None:
        """Report the components that were finished meanwhile, or raise what kept one from it."""
        for job in self.jobs:
            if job.component not in self.reports and (wait or job.written.done()):
                report = _component_report(job)
                self._tell(Progress(job.component, len(self.reports), len(self.wanted), report))
                self.reports[job.component] = report

    def _tell(self, event: Progress) -> None:
        if self.progress is not None:
            self.progress(event)


def _turn(wanted: Wanted) -> tuple[bool, int, str]:
    """Where a component comes: cached ones by rising size, then the others by falling size."""
    is_new, size = not wanted.is_kept, wanted.part.weights.bytes
    return is_new, -size if is_new else size, wanted.part.name


def _component_report(job: _Job) -> ComponentReport:
    seconds, origins = job.seconds + job.written.result(), [one.origin for one in job.prepared]
    return ComponentReport(
        name=job.component,
        package=job.paths[0].name,
        seconds=seconds,
        bytes=_disk_bytes(job.paths),
        peak_memory=peak_memory(),
        precision=job.prepared[0].precision.dtype,
        reason=job.prepared[0].precision.reason,
        program=None if None in origins else ", ".join(dict.fromkeys(map(str, origins))),
        sizes=tuple(dict.fromkeys(str(one.size) for one in job.entry.variants if one.size is not None)),
        variants=job.entry.labels if len(job.entry.variants) > 1 else (),
    )


def _disk_bytes(packages: Iterable[Path]) -> int:
    """What the packages take; a file with several names counts once."""
    files = (file.stat() for path in packages for file in path.rglob("*") if file.is_file())
    return sum({(one.st_dev, one.st_ino): one.st_size for one in files}.values())


def _flush(packages: tuple[Path, ...], written: Future[float]) -> None:
    """Have the system write packages to the disk now, while others are still made."""
    written.result()
    if os.name == "nt":
        return  # Windows does not flush what is open for reading
    for file in (path for package in packages for path in package.rglob("*") if path.is_file()):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
