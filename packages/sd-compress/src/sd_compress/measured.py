"""How much noise each way to store a weight adds to the network's output, by trying it.

Where :mod:`sd_compress.sensitivity` expects, this measures: every weight is stored in every way alone, and
the network run. That takes a run for each of them, but none has to wait for another: joblib spreads them
over processes, or over machines (``joblib.parallel_config(backend="ray")`` or ``"dask"`` around the call).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt
from sd_mil import read_package
from sd_mil.engines import OpenVINO, ProgramEngine

from .compress import Assign, compress
from .errors import CompressionError
from .palettes import optimal_palette
from .quality import floats_of, signal_to_noise_of
from .recipe import Recipe
from .schemes import Keep, Palettize
from .sensitivity import WIDTHS, Candidate, Sensitivity, itemsize
from .weights import weights_of

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]


def measured_sensitivities(
    package: Path,
    weights: Sequence[str],
    inputs: Sequence[Arrays],
    *,
    schemes: Sequence[Palettize] = WIDTHS,
    assign: Assign = optimal_palette,
    engine: ProgramEngine | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Sensitivity, ...]:
    """Those of the ``weights`` of a package, by name, over ``inputs`` of its default function.

    A candidate's noise is that of the worst output of floating point, over its signal. ``jobs`` processes
    share the work, -1 for as many as there are cores; None leaves that, and where they run, to
    ``joblib.parallel_config``. Workers on other machines read the package by the same path. Schemes that do
    not suit a weight are left out.

    Raises:
        CompressionError: no such weight; or ``jobs`` without joblib.
        EngineError: the engine does not run the program.
    """
    program, chosen = read_package(package).program, engine or OpenVINO()
    known = {weight.name: weight for weight in weights_of(program)}
    if missing := sorted(set(weights) - known.keys()):
        raise CompressionError(f"{package}: expected weights of the program, got {', '.join(missing)}")
    expected = floats_of(chosen, program, inputs)
    given = package, tuple(schemes), assign, chosen, inputs, expected
    found = []
    for one in _results([(name, *given) for name in weights], jobs):
        found.append(one)
        if progress is not None:
            progress(len(found), len(weights))
    return tuple(found)


def _results(tasks: Sequence[tuple[Any, ...]], jobs: int | None) -> Iterable[Sensitivity]:
    """In the order of the tasks, as they come."""
    try:
        from joblib import delayed
    except ImportError:
        if jobs not in (None, 1):
            raise CompressionError(
                f"expected joblib for {jobs} jobs, which is not installed: "
                "pip install 'sd-compress[parallel]'"
            ) from None
        return (_measured(*task) for task in tasks)
    results: Iterable[Sensitivity] = _parallel(jobs)(delayed(_measured)(*task) for task in tasks)
    return results


def _parallel(jobs: int | None) -> Any:
    """Results as a generator where the backend has them so."""
    from joblib import Parallel

    try:
        return Parallel(n_jobs=jobs, return_as="generator")
    except ValueError:
        return Parallel(n_jobs=jobs)


def _measured(
    name: str,
    package: Path,
    schemes: Sequence[Palettize],
    assign: Assign,
    engine: ProgramEngine,
    inputs: Sequence[Arrays],
    expected: Sequence[Arrays],
) -> Sensitivity:
    """One weight, in a process that may know nothing yet."""
    program = read_package(package).program
    weight = next(one for one in weights_of(program) if one.name == name)
    candidates = [Candidate(Keep(), weight.elements * itemsize(weight), 0.0)]
    for scheme in schemes:
        made = compress(program, Recipe({name: scheme}), assign=assign, workers=1)
        (report,) = {one.name: one for one in made.weights}.values()
        if report.kept:
            continue
        snr = signal_to_noise_of(engine, made.program, inputs, expected)
        candidates.append(Candidate(scheme, report.bytes_after, 10 ** (-snr / 10)))
    return Sensitivity(name, weight.elements, tuple(candidates))
