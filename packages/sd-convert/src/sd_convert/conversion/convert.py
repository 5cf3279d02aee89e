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
from sd_convert.components import KINDS, ComponentKind, chosen_parts, load_libraries
from sd_convert.components.metadata import model_version
from sd_convert.facts import chosen_sizes

from .background import Background
from .bundle import bundle_component, copy_files, model_facts, provenance
from .cache import ConversionCache
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
    the path of a bundle), None for a new one.
    """

    name: str
    package: str
    seconds: float
    bytes: int
    peak_memory: int | None
    precision: str
    reason: str | None
    program: str | None

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
    programs = Programs(chosen_sizes(facts, options), options, cache, stores)
    if like is not None:
        like.check(programs, parts)
    model = model_facts(facts, programs.sizes, model_version(facts, options), names)
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


@dataclass(frozen=True, slots=True)
class _Job:
    """A component whose ``program`` is there, after ``seconds``, and whose package is being written."""

    component: str
    path: Path
    prepared: PreparedComponent
    program: LoweredComponent | PackedComponent
    seconds: float
    written: Future[float]


@dataclass(slots=True)
class _Work:
    """Programs in this thread, and packages behind its back.

    Cached programs first, the smallest component of all first, so that something is written while the others
    are read; then those to be lowered, the largest first.
    """

    programs: Programs
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
        began, part, options = perf_counter(), wanted.part, self.programs.options
        prepared = self.programs.prepared(wanted)
        if self.like is not None:
            self.like.check_precision(part, prepared)
        package = part.kind.package_of(model_version(part.facts, options), self.programs.sizes)
        size = self.draft.model.image
        entry = bundle_component(part.kind, prepared.ports, package, options, size=size)
        program, entry = self._transformed(prepared.program, entry)
        if self.transform is None:
            self._keep(prepared.kept)
        pending = sum(job.program.weight_bytes for job in self.jobs if not job.written.done())
        check_space(self.draft.folder, pending + program.weight_bytes)
        path = self.draft.add_component(entry)
        written = writing.submit(lambda: self._write(program, path, writing.check))
        flushing.submit(lambda: _flush(path, written))
        self.jobs.append(_Job(part.name, path, prepared, program, perf_counter() - began, written))

    def _keep(self, kept: Mapping[str, bytes]) -> None:
        """Put programs without weights into the bundle, for those that are to be like it."""
        for key, content in kept.items():
            self.draft.add_file(f"{FOLDER}/{file_name(key)}", compressed(content))

    def _transformed(
        self, program: LoweredComponent | PackedComponent, entry: BundleComponent
    ) -> tuple[LoweredComponent | PackedComponent, BundleComponent]:
        if self.transform is None:
            return program, entry
        lowered = program.lowered()
        done = self.transform(entry, lowered.program)
        for relative, content in done.files.items():
            self.draft.add_file(relative, content)
        return replace(lowered, program=done.program), replace(entry, compression=done.compression)

    def _write(
        self, program: LoweredComponent | PackedComponent, path: Path, check: Callable[[], None]
    ) -> float:
        """Write a package; the seconds that it took."""
        began = perf_counter()
        written = program.write(path, check)
        for relative, sha256 in written.sha256.items():
            self.draft.add_hash(f"{path.name}/{relative}", sha256)
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
    seconds = job.seconds + job.written.result()
    return ComponentReport(
        name=job.component,
        package=job.path.name,
        seconds=seconds,
        bytes=sum(file.stat().st_size for file in job.path.rglob("*") if file.is_file()),
        peak_memory=peak_memory(),
        precision=job.prepared.precision.dtype,
        reason=job.prepared.precision.reason,
        program=job.prepared.origin,
    )


def _flush(package: Path, written: Future[float]) -> None:
    """Have the system write a package to the disk now, while others are still made."""
    written.result()
    if os.name == "nt":
        return  # Windows does not flush what is open for reading
    for file in (path for path in package.rglob("*") if path.is_file()):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
