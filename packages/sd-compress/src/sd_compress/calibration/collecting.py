"""Statistics of the inputs of all layers of a program, collected while the program runs.

The program is asked for the inputs of its layers as if they were its outputs, as many at a time as memory
allows: each such batch is compiled, run on every calibration input, and its statistics are finished (and,
with a folder, on the disk) before the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_mil import Program
from sd_mil.engines import OpenVINO, ProgramEngine
from sd_mil.rewriting import returning

from sd_compress.activations import LayerInput
from sd_compress.calibration.devices import Device, check_device
from sd_compress.calibration.hessians import Hessian, block_sizes, largest_block, total_bytes
from sd_compress.calibration.inputs import Patches, inputs_of, types_of
from sd_compress.calibration.jobs import HessianJob, InputJob, Job, Rows
from sd_compress.calibration.stored import Stored, fingerprint
from sd_compress.errors import CalibrationError

Array: TypeAlias = npt.NDArray[Any]
#: Arrays by input name of the program.
Inputs: TypeAlias = Mapping[str, Array]
#: Is told how many runs of the program are done, and how many there will be.
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Collecting:
    """How statistics are collected.

    ``memory``: bytes that all of them may take; they are block-diagonal where that is too little.
    ``values``: bytes of layers' inputs, in float32, that the engine is asked for at once; fewer means more
    batches. ``rows``: how many of a layer's rows are looked at in each run, drawn at random where there are
    more. ``engine``: what runs the program. ``device``: where torch sums up; if None, numpy does.
    """

    memory: int = 5 * 10**9 // 2
    values: int = 10**9
    rows: int = 512
    engine: ProgramEngine = field(default_factory=OpenVINO)
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was asked for, by the name of the weight: Hessians, and what the inputs of its layers are like."""

    hessians: Mapping[str, Hessian]
    inputs: Mapping[str, tuple[LayerInput, ...]]


def collect_statistics(
    program: Program,
    inputs: Sequence[Inputs],
    settings: Collecting | None = None,
    *,
    hessians: bool = True,
    activations: bool = True,
    folder: Path | None = None,
    left_there: bool = False,
    progress: Progress | None = None,
) -> Statistics:
    """Statistics of the weights of the default function over the same runs of the program on ``inputs``.

    ``hessians`` are for palettes (:class:`Calibrated`), ``activations`` for layers in int8. In ``folder``
    what is finished is kept: the same call after an interruption goes on from there. ``left_there``: Hessians
    take no memory, but are read whenever they are asked for; whoever uses them keeps the folder until then.

    Raises:
        CalibrationError: no inputs, some that do not fit the program, values that are not finite, memory
            for less than a block per channel, or no such device; also from a Hessian that was left there,
            and is not there any more.
        EngineError: the engine does not run it.
        ValueError: ``left_there`` without a folder.
    """
    if left_there and folder is None:
        raise ValueError("expected a folder with left_there, got none")
    settings = settings or Collecting()
    _check(program, inputs)
    rows_of = inputs_of(program)
    groups = tuple(dict.fromkeys(rows_of.values()))
    if settings.device is not None:
        check_device(settings.device)
    by_group = _hessian_jobs(groups, settings) if hessians else {}
    of_inputs = {one: InputJob((one,)) for group in groups for one in group} if activations else {}
    stored = None
    if folder is not None:
        stored = Stored(folder / fingerprint(program, inputs, rows=settings.rows).hex())
    jobs = _in_order(groups, by_group, of_inputs)
    found = _Collection(program, inputs, settings, jobs, stored, left_there).run(progress)
    by_weight = {weight: by_group[group] for weight, group in rows_of.items() if hessians}
    return Statistics(
        _Left(by_weight, stored)
        if left_there and stored is not None
        else {weight: found[job] for weight, job in by_weight.items()},
        {
            weight: tuple(found[of_inputs[one]] for one in group)
            for weight, group in rows_of.items()
            if activations
        },
    )


def collect_hessians(
    program: Program,
    inputs: Sequence[Inputs],
    settings: Collecting | None = None,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Hessian]:
    """Those of :func:`collect_statistics`, alone."""
    found = collect_statistics(program, inputs, settings, activations=False, folder=folder, progress=progress)
    return dict(found.hessians)


def collect_activations(
    program: Program,
    inputs: Sequence[Inputs],
    settings: Collecting | None = None,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, tuple[LayerInput, ...]]:
    """What :func:`collect_statistics` finds out of the inputs of layers, alone."""
    found = collect_statistics(program, inputs, settings, hessians=False, folder=folder, progress=progress)
    return dict(found.inputs)


def _in_order(
    groups: Sequence[Rows], hessians: Mapping[Rows, HessianJob], inputs: Mapping[Patches, InputJob]
) -> tuple[Job[Any], ...]:
    """Jobs that look at the same value beside each other, so that it is asked for once."""
    jobs: dict[Job[Any], None] = {}
    for group in groups:
        if group in hessians:
            jobs[hessians[group]] = None
        jobs |= {inputs[one]: None for one in group if one in inputs}
    return tuple(jobs)


def _check(program: Program, inputs: Sequence[Inputs]) -> None:
    if not inputs:
        raise CalibrationError("expected at least one input to calibrate with, got none")
    expected = {variable.name: variable.type.shape for variable in program.main.inputs}
    for number, arrays in enumerate(inputs):
        got = {name: np.shape(array) for name, array in arrays.items()}
        if got.keys() != expected.keys() or not all(
            _fits(got[name], shape) for name, shape in expected.items()
        ):
            raise CalibrationError(f"expected {expected} as calibration input {number}, got {got}")


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    pairs = zip(shape, declared, strict=False)
    return len(shape) == len(declared) and all(size in (None, given) for given, size in pairs)


def _hessian_jobs(groups: Sequence[Rows], settings: Collecting) -> dict[Rows, HessianJob]:
    """With the sizes of the blocks of each Hessian."""
    memory = settings.memory
    shapes = [(group[0].inputs, group[0].taps) for group in groups]
    largest = largest_block(shapes, memory)
    if (needed := total_bytes(shapes, largest)) > memory:
        raise CalibrationError(
            f"expected at least {needed} bytes for Hessians of one channel each, got a bound of {memory}"
        )
    return {
        group: HessianJob(group, block_sizes(*shape, largest), settings.device)
        for group, shape in zip(groups, shapes, strict=True)
    }


#: The share by which the largest batch may take more memory than it could.
_CLOSE: Final = 1 / 256
#: In place of a result that stays in its folder.
_LEFT: Final = object()


@dataclass(frozen=True)
class _Left(Mapping[str, Hessian]):
    """Hessians that stay where they are stored, by the names of weights."""

    jobs: Mapping[str, HessianJob]
    stored: Stored

    def __getitem__(self, weight: str) -> Hessian:
        arrays = self.stored.load(job := self.jobs[weight])
        hessian = None if arrays is None else job.parsed(arrays)
        if hessian is None:
            raise CalibrationError(
                f"expected the Hessian of {weight!r} in {self.stored.folder}, where it was left, got none or "
                "a damaged one: calibrate again"
            )
        return hessian

    def __iter__(self) -> Iterator[str]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


@dataclass(frozen=True, slots=True)
class _Collection:
    program: Program
    inputs: Sequence[Inputs]
    settings: Collecting
    jobs: Sequence[Job[Any]]
    stored: Stored | None
    left_there: bool

    def run(self, progress: Progress | None) -> dict[Job[Any], Any]:
        found = {job: kept for job in self.jobs if (kept := self._kept(job)) is not None}
        batches = self._batches([job for job in self.jobs if job not in found])
        total = len(batches) * len(self.inputs)
        for place, batch in enumerate(batches):
            sums = {job: job.begin() for job in batch}
            for number in self._runs(sums):
                if progress is not None:
                    progress(place * len(self.inputs) + number, total)
            found |= {job: self._finished(job, sums.pop(job)) for job in batch}
        return found

    def _kept(self, job: Job[Any]) -> Any:
        arrays = None if self.stored is None else self.stored.load(job)
        return None if arrays is None else self._held(job, job.parsed(arrays))

    def _held(self, job: Job[Any], result: Any) -> Any:
        """What stays in memory of a result."""
        return _LEFT if result is not None and self.left_there and isinstance(job, HessianJob) else result

    def _batches(self, jobs: Sequence[Job[Any]]) -> list[list[Job[Any]]]:
        """As few batches as there can be, and of those the ones that take the least memory."""
        sizes = self._sizes()
        most = sum(sizes.values()) + sum(job.bytes for job in jobs)
        fewest, low = len(self._cut(jobs, sizes, most)), 0
        while most - low > max(1, _CLOSE * most):
            middle = (low + most) // 2
            low, most = (low, middle) if len(self._cut(jobs, sizes, middle)) <= fewest else (middle, most)
        return self._cut(jobs, sizes, most)

    def _cut(self, jobs: Sequence[Job[Any]], sizes: Mapping[str, int], most: int) -> list[list[Job[Any]]]:
        """Neighbouring jobs whose values, and values with sums, fit into memory; each has at least one."""
        batches: list[list[Job[Any]]] = []
        asked: set[str] = set()
        sums = 0
        for job in jobs:
            names = {rows.value for rows in job.group}
            now = sum(sizes[name] for name in asked | names)
            is_full = now > self.settings.values or now + sums + job.bytes > most
            if not batches or (is_full and not names <= asked):
                batches.append([])
                asked, sums = set(), 0
            batches[-1].append(job)
            asked, sums = asked | names, sums + job.bytes
        return batches

    def _sizes(self) -> dict[str, int]:
        """Bytes of each value in float32."""
        types = types_of(self.program)
        return {name: 4 * math.prod(size or 1 for size in kind.shape) for name, kind in types.items()}

    def _runs(self, sums: Mapping[Job[Any], Any]) -> Iterator[int]:
        """Run on each input, add what its values are, and say how many inputs that were."""
        given = {variable.name for variable in self.program.main.inputs}
        asked = dict.fromkeys(rows.value for job in sums for rows in job.group if rows.value not in given)
        compiled = self.settings.engine.compile(returning(self.program, asked)) if asked else None
        for number, arrays in enumerate(self.inputs):
            self._add({**arrays, **({} if compiled is None else compiled.run(arrays))}, sums, number)
            yield number + 1

    def _add(self, values: Inputs, sums: Mapping[Job[Any], Any], number: int) -> None:
        """The values of a run, which nothing keeps: there may be no room for those of two."""
        for job, total in sums.items():
            for rows in job.group:
                value = values[rows.value]
                drawn = rows.rows(value, self.settings.rows, number)
                _check_finite(rows.value, drawn, number)
                job.add(total, value, drawn)

    def _finished(self, job: Job[Any], total: Any) -> Any:
        result = job.result(total)
        if self.stored is not None:
            self.stored.save(job, job.arrays(result))
        return self._held(job, result)


def _check_finite(name: str, rows: Array, number: int) -> None:
    if not np.isfinite(rows).all():
        raise CalibrationError(
            f"expected finite numbers in {name!r}, which layers multiply with weights, got NaN or "
            f"infinity in calibration input {number}: the network overflows there, or an input is damaged"
        )
