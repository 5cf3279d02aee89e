"""What is collected of the rows that a layer multiplies with its weight: a job for each statistic of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from sd_compress.activations import LayerInput
from sd_compress.calibration.devices import Device, DeviceAccumulator
from sd_compress.calibration.hessians import Accumulator, Hessian
from sd_compress.calibration.inputs import Patches
from sd_compress.clustering import Histogram
from sd_compress.errors import CalibrationError

Array: TypeAlias = npt.NDArray[Any]
#: What one weight's rows are: weights that multiply the same share a Hessian.
Rows: TypeAlias = tuple[Patches, ...]

#: Rows of each input that are kept, over all runs, to try quantization on.
_SAMPLE: Final = 256
_SAMPLED_A_RUN: Final = 16
_WORDS: Final = 1 << 16

_Result = TypeVar("_Result")


class Job(Protocol[_Result]):
    """One statistic of the rows of ``group``: a sum over runs, which becomes a result; also as arrays."""

    @property
    def group(self) -> Rows:
        """What is looked at."""

    @property
    def bytes(self) -> int:
        """What the sum takes, about."""

    def begin(self) -> Any:
        """Before any run."""

    def add(self, total: Any, value: Array, rows: Array) -> None:
        """A run: the value as the program has it, and rows [any, inputs] drawn from it."""

    def result(self, total: Any) -> _Result:
        """After all runs."""

    def arrays(self, result: _Result) -> dict[str, Array]:
        """For a file."""

    def parsed(self, arrays: Mapping[str, Array]) -> _Result | None:
        """The inverse of :meth:`arrays`; None if that is not what the file has."""


@dataclass(frozen=True, slots=True)
class HessianJob:
    """The Hessian of the rows, in blocks of ``sizes``; on a ``device`` it is the same, sooner."""

    group: Rows
    sizes: tuple[int, ...]
    device: Device | None = field(default=None, repr=False, compare=False)

    @property
    def bytes(self) -> int:
        """Those of the blocks."""
        return sum(4 * size * size for size in self.sizes)

    def begin(self) -> Accumulator:
        """Zeros."""
        return Accumulator(self.sizes) if self.device is None else DeviceAccumulator(self.sizes, self.device)

    def add(self, total: Accumulator, _: Array, rows: Array) -> None:
        """Add the products of the rows drawn."""
        total.add(rows)

    def result(self, total: Accumulator) -> Hessian:
        """The mean."""
        return total.hessian()

    def arrays(self, result: Hessian) -> dict[str, Array]:
        """The rows, then the blocks."""
        blocks = {f"block{place}": block for place, block in enumerate(result.blocks)}
        return {"rows": np.asarray(result.rows, np.int64), **blocks}

    def parsed(self, arrays: Mapping[str, Array]) -> Hessian | None:
        """If they have these sizes."""
        names = [f"block{place}" for place in range(len(self.sizes))]
        if arrays.keys() != {"rows", *names} or arrays["rows"].shape:
            return None
        blocks = tuple(arrays[name] for name in names)
        fits = all(_fits(block, (size, size)) for block, size in zip(blocks, self.sizes, strict=True))
        return Hessian(blocks, int(arrays["rows"])) if fits else None


@dataclass(slots=True)
class _InputSum:
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_WORDS, np.int64))
    rows: list[Array] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class InputJob:
    """How often the value has which numbers of fp16, and some of its rows."""

    group: tuple[Patches]

    @property
    def bytes(self) -> int:
        """Those of the counts and the rows."""
        return 8 * _WORDS + 4 * _SAMPLE * self.group[0].inputs

    def begin(self) -> _InputSum:
        """Nothing."""
        return _InputSum()

    def add(self, total: _InputSum, value: Array, rows: Array) -> None:
        """Count every number of the value, in fp16, and keep some of the rows.

        Raises:
            CalibrationError: not all of them are finite.
        """
        from sd_compress._loops import count_words

        if not np.isfinite([value.min(), value.max()]).all():
            raise CalibrationError(
                f"expected finite numbers in {self.group[0].value!r}, which is to be quantized, got NaN or "
                "infinity: the network overflows there, or an input is damaged"
            )
        largest = np.finfo(np.float16).max
        halves = np.ascontiguousarray(np.clip(value, -largest, largest), np.float16).reshape(-1)
        total.counts += count_words(halves.view(np.uint16))
        if sum(map(len, total.rows)) < _SAMPLE:
            total.rows.append(rows[:: -(-len(rows) // _SAMPLED_A_RUN)].copy())

    def result(self, total: _InputSum) -> LayerInput:
        """The histogram, and the rows."""
        histogram = Histogram.counted(total.counts)
        return LayerInput(self.group[0].value, histogram, np.concatenate(total.rows))

    def arrays(self, result: LayerInput) -> dict[str, Array]:
        """As they are."""
        return {
            "values": result.histogram.values,
            "counts": result.histogram.counts,
            "sample": result.rows,
        }

    def parsed(self, arrays: Mapping[str, Array]) -> LayerInput | None:
        """If they are a histogram, and rows."""
        if arrays.keys() != {"values", "counts", "sample"}:
            return None
        values, counts, rows = (arrays[name] for name in ("values", "counts", "sample"))
        fits = (
            _fits(values, counts.shape, np.float64)
            and _fits(counts, values.shape, np.float64)
            and _fits(rows, (len(rows) if rows.ndim else 0, self.group[0].inputs))
            and 0 < values.size <= _WORDS
            and values.ndim == 1
            and bool((np.diff(values) > 0).all() and (counts > 0).all())
        )
        return LayerInput(self.group[0].value, Histogram(values, counts), rows) if fits else None


def _fits(array: Array, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> bool:
    return array.shape == shape and array.dtype == dtype and bool(np.isfinite(array).all())
