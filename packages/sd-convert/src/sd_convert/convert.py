"""The whole way: a checkpoint in, a bundle out, one component in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeAlias

from sd_runtime import Draft, new_bundle

from .bundle import bundle_component, copy_files, model_facts, provenance
from .checkpoint import Checkpoint
from .components import build_component, load_libraries
from .facts import model_version, package_name
from .memory import peak_memory
from .options import ConversionOptions
from .plan import chosen_components


@dataclass(frozen=True, slots=True)
class ComponentReport:
    """One network converted. ``peak_memory`` is the process' high-water mark after it, in bytes."""

    name: str
    package: str
    seconds: float
    bytes: int
    peak_memory: int | None


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """A conversion done: ``seconds`` is all of it, ``loading_seconds`` what importing libraries took."""

    bundle: Path
    components: tuple[ComponentReport, ...]
    loading_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Component ``index`` of ``total`` begins (``report`` is None) or is done."""

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
) -> ConversionReport:
    """Convert the components of ``checkpoint`` and write the bundle ``output``.

    The bundle appears when it is complete. On any exception, Ctrl-C included, what was at ``output`` stays as
    it was, and nothing is left beside it.

    Raises:
        CheckpointError, UnsupportedArchitectureError, OptionsError, LoweringError: see ``sd_convert.errors``.
        sd_runtime.OutputExistsError: ``output`` exists and is not to be overwritten, or is no bundle.
    """
    options, began = options or ConversionOptions(), perf_counter()
    names = chosen_components(checkpoint, options)
    facts = model_facts(checkpoint, options, names)
    with new_bundle(output, facts, provenance=provenance(checkpoint), overwrite=options.overwrite) as draft:
        copy_files(checkpoint, draft, names)
        load_libraries(names)
        loading = perf_counter() - began
        reports = []
        for index, name in enumerate(names):
            _tell(progress, Progress(name, index, len(names)))
            reports.append(_convert_component(checkpoint, options, name, draft))
            _tell(progress, Progress(name, index, len(names), reports[-1]))
    return ConversionReport(Path(output), tuple(reports), loading, perf_counter() - began)


def _tell(progress: OnProgress | None, event: Progress) -> None:
    if progress is not None:
        progress(event)


def _convert_component(
    checkpoint: Checkpoint, options: ConversionOptions, name: str, draft: Draft
) -> ComponentReport:
    from .write import write_component

    began = perf_counter()
    component = build_component(name, checkpoint, options)
    package = package_name(model_version(checkpoint, options), name)
    path = draft.add_component(bundle_component(component, package, options))
    written = write_component(
        component,
        path,
        attention=options.attention_implementation,
        compute_unit=options.resolved_compute_unit,
        target=options.target,
    )
    return ComponentReport(name, package, perf_counter() - began, written.bytes, peak_memory())
