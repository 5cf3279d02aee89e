"""Hessians of all weights of a program, collected while the program runs.

The program is asked for the inputs of its layers as if they were its outputs, as many at a time as memory
allows: each such batch is compiled, run on every calibration input, and its Hessians are finished (and, with
a folder, on the disk) before the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_mil import Program
from sd_mil.engines import OpenVINO, ProgramEngine
from sd_mil.rewriting import returning

from sd_compress.calibration.hessians import Accumulator, Hessian, block_sizes, largest_block, total_bytes
from sd_compress.calibration.inputs import Patches, inputs_of, types_of
from sd_compress.calibration.stored import Stored, fingerprint
from sd_compress.errors import CalibrationError

Array: TypeAlias = npt.NDArray[Any]
#: Arrays by input name of the program.
Inputs: TypeAlias = Mapping[str, Array]
#: Is told how many runs of the program are done, and how many there will be.
Progress: TypeAlias = Callable[[int, int], None]

#: What one weight's rows are: weights that multiply the same share a Hessian.
_Rows: TypeAlias = tuple[Patches, ...]


@dataclass(frozen=True, slots=True)
class Collecting:
    """How Hessians are collected.

    ``memory``: bytes that all of them may take; they are block-diagonal where that is too little.
    ``values``: bytes of layers' inputs, in float32, that the engine is asked for at once; fewer means more
    batches. ``rows``: how many of a layer's rows are looked at in each run, drawn at random where there are
    more. ``engine``: what runs the program.
    """

    memory: int = 5 * 10**9 // 2
    values: int = 10**9
    rows: int = 512
    engine: ProgramEngine = field(default_factory=OpenVINO)


def collect_hessians(
    program: Program,
    inputs: Sequence[Inputs],
    settings: Collecting | None = None,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Hessian]:
    """Hessians of the weights of the default function, by name, over runs of the program on ``inputs``.

    In ``folder`` what is finished is kept: the same call after an interruption goes on from there.

    Raises:
        CalibrationError: no inputs, some that do not fit the program, values that are not finite, or memory
            for less than a block per channel.
        EngineError: the engine does not run it.
    """
    settings = settings or Collecting()
    _check(program, inputs)
    rows_of = inputs_of(program)
    groups = tuple(dict.fromkeys(rows_of.values()))
    sizes = _sizes(groups, settings.memory)
    stored = None
    if folder is not None:
        stored = Stored(folder / fingerprint(program, inputs, rows=settings.rows).hex())
    collected = _Collection(program, inputs, settings, sizes, stored).run(progress)
    return {weight: collected[group] for weight, group in rows_of.items()}


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


def _sizes(groups: Sequence[_Rows], memory: int) -> dict[_Rows, tuple[int, ...]]:
    """Of the blocks of each Hessian."""
    shapes = [(group[0].inputs, group[0].taps) for group in groups]
    largest = largest_block(shapes, memory)
    if (needed := total_bytes(shapes, largest)) > memory:
        raise CalibrationError(
            f"expected at least {needed} bytes for Hessians of one channel each, got a bound of {memory}"
        )
    return {group: block_sizes(*shape, largest) for group, shape in zip(groups, shapes, strict=True)}


@dataclass(frozen=True, slots=True)
class _Collection:
    program: Program
    inputs: Sequence[Inputs]
    settings: Collecting
    sizes: Mapping[_Rows, tuple[int, ...]]
    stored: Stored | None

    def run(self, progress: Progress | None) -> dict[_Rows, Hessian]:
        found = {group: kept for group, sizes in self.sizes.items() if (kept := self._kept(group, sizes))}
        batches = list(self._batches([group for group in self.sizes if group not in found]))
        total = len(batches) * len(self.inputs)
        for place, batch in enumerate(batches):
            sums = {group: Accumulator(self.sizes[group]) for group in batch}
            for number in self._runs(batch, sums):
                if progress is not None:
                    progress(place * len(self.inputs) + number, total)
            found |= {group: self._finished(group, sums.pop(group)) for group in batch}
        return found

    def _kept(self, group: _Rows, sizes: tuple[int, ...]) -> Hessian | None:
        return None if self.stored is None else self.stored.load(group, sizes)

    def _batches(self, groups: Sequence[_Rows]) -> Iterator[list[_Rows]]:
        """Neighbouring groups whose values fit into memory together; each has at least one."""
        shapes = self._shapes()
        batch: list[_Rows] = []
        for group in groups:
            asked = {rows.value for one in (*batch, group) for rows in one}
            if batch and sum(4 * math.prod(shapes[name]) for name in asked) > self.settings.values:
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        types = types_of(self.program)
        return {name: tuple(size or 1 for size in kind.shape) for name, kind in types.items()}

    def _runs(self, batch: Sequence[_Rows], sums: Mapping[_Rows, Accumulator]) -> Iterator[int]:
        """Run on each input, add its rows, and say how many inputs that were."""
        given = {variable.name for variable in self.program.main.inputs}
        asked = dict.fromkeys(rows.value for group in batch for rows in group if rows.value not in given)
        compiled = self.settings.engine.compile(returning(self.program, asked)) if asked else None
        for number, arrays in enumerate(self.inputs):
            values = {**arrays, **({} if compiled is None else compiled.run(arrays))}
            for group, total in sums.items():
                for rows in group:
                    total.add(self._drawn(rows, values[rows.value], number))
            yield number + 1

    def _drawn(self, rows: Patches, value: Array, number: int) -> Array:
        found = rows.rows(value, self.settings.rows, number)
        if not np.isfinite(found).all():
            raise CalibrationError(
                f"expected finite numbers in {rows.value!r}, which layers multiply with weights, got NaN or "
                f"infinity in calibration input {number}: the network overflows there, or an input is damaged"
            )
        return found

    def _finished(self, group: _Rows, total: Accumulator) -> Hessian:
        hessian = total.hessian()
        if self.stored is not None:
            self.stored.save(group, hessian)
        return hessian
