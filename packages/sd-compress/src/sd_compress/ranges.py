"""Which numbers 8-bit integers stand for, of those that a layer's input was seen to have.

A wide range leaves a coarse step, a narrow one clips what is beyond. Both errors follow from the histogram of
what calibration saw: nothing is run again to compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .clustering import Histogram
from .quantizing import rounded_scale
from .schemes import Activations, RangeMethod

Array: TypeAlias = npt.NDArray[Any]
#: The ends of a range, around zero.
Range: TypeAlias = tuple[float, float]

_FIRST, _LAST = -128, 127
#: The share of numbers beyond either end of a percentile's range.
_BEYOND: Final = 1e-4
#: Ends that are tried between the outermost number and a quarter of it, of which the best is refined.
_TRIED: Final = 25
_NARROWEST: Final = 0.1
_ROUNDS: Final = 2
#: Values that errors are added up over.
_CELLS: Final = 4096


@dataclass(frozen=True, slots=True)
class Affine:
    """``(integer - zero_point) * scale``, the integers int8; ``scale`` as the program's dtype has it."""

    scale: float
    zero_point: int = 0

    def applied(self, values: Array) -> Array:
        """What ``quantize`` and ``dequantize`` make of ``values``: the nearest that an integer stands for.

        Source: coremltools ``defs/iOS17/quantization_ops.py``.
        """
        integers = np.clip(np.rint(values / self.scale) + self.zero_point, _FIRST, _LAST)
        quantized: Array = (integers - self.zero_point) * self.scale
        return quantized


def affine_of(histogram: Histogram, scheme: Activations, dtype: npt.DTypeLike = np.float16) -> Affine:
    """The integers for numbers of such a histogram; ``dtype`` is the program's, which the scale is in.

    Of nothing but zeros the scale is 1.
    """

    def affine(ends: Range) -> Affine:
        return _affine(ends, scheme, np.dtype(dtype))

    low, high = min(0.0, float(histogram.values[0])), max(0.0, float(histogram.values[-1]))
    if scheme.mode == "symmetric":
        high = max(-low, high)
        low = -high
    if low == high:
        return Affine(1.0)
    return affine(_RANGES[scheme.range](histogram, (low, high), affine))


def _affine(ends: Range, scheme: Activations, dtype: np.dtype[Any]) -> Affine:
    low, high = np.float32(ends[0]), np.float32(ends[1])
    steps = 2 * _LAST if scheme.mode == "symmetric" else _LAST - _FIRST
    scale = float(rounded_scale(np.asarray((high - low) / steps), np.maximum(-low, high), dtype))
    if scheme.mode == "symmetric":
        return Affine(scale)
    return Affine(scale, int(np.clip(np.rint(_FIRST - low / scale), _FIRST, _LAST)))


_Choice: TypeAlias = Callable[[Histogram, Range, Callable[[Range], Affine]], Range]


def _all(_: Histogram, whole: Range, __: Callable[[Range], Affine]) -> Range:
    return whole


def _percentile(histogram: Histogram, whole: Range, _: Callable[[Range], Affine]) -> Range:
    """Within ``whole``, and around zero as that is."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    low, high = (
        float(histogram.values[min(int(np.searchsorted(share, at)), len(share) - 1)])
        for at in (_BEYOND, 1 - _BEYOND)
    )
    if whole[0] == -whole[1]:
        low, high = -max(-low, high), max(-low, high)
    found = max(whole[0], min(low, 0.0)), min(whole[1], max(high, 0.0))
    return found if found[0] < found[1] else whole


def _least_error(histogram: Histogram, whole: Range, affine: Callable[[Range], Affine]) -> Range:
    """One end after the other is moved to where the error is least; both as one where they are opposite."""

    cells = histogram.coarser(_CELLS)

    def error(below: float, above: float) -> float:
        ends = whole[0] * below, whole[1] * above
        difference = affine(ends).applied(cells.values) - cells.values
        return float(np.dot(cells.counts, np.square(difference)))

    below = above = 1.0
    if whole[0] == -whole[1]:
        below = above = _best_share(lambda share: error(share, share))
    else:
        for _ in range(_ROUNDS):
            above = _best_share(partial(error, below))
            below = _best_share(partial(_swapped, error, above))
    return whole[0] * below, whole[1] * above


def _swapped(error: Callable[[float, float], float], above: float, below: float) -> float:
    return error(below, above)


def _best_share(error: Callable[[float], float]) -> float:
    """Of shares up to 1 on a grid, and then on a finer one around the best of them."""
    tried = np.linspace(1, _NARROWEST, _TRIED)
    step = float(tried[0] - tried[1])
    best = min(tried.tolist(), key=error)
    finer = np.clip(best + step * np.linspace(-0.8, 0.8, 9), _NARROWEST, 1)
    return float(min([best, *finer.tolist()], key=error))


_RANGES: Final[Mapping[RangeMethod, _Choice]] = MappingProxyType(
    {"minmax": _all, "percentile": _percentile, "mse": _least_error}
)
