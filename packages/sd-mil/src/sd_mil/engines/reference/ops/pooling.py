"""Poolings in one, two or three spatial dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sd_mil.engines.reference.ops.windows import PAD_TYPES, padded, padding, per_axis, windows
from sd_mil.engines.reference.registry import Array, check_counts, op

_CHOICES = {"pad_type": PAD_TYPES}


@op("max_pool", choices=_CHOICES)
def max_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    ceil_mode: Array | bool = False,
) -> Array:
    """The maximum of each window; padding never wins."""
    pool = _pool(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return np.asarray(pool.windows(x, fill=-np.inf).max(axis=pool.axes))


@op("avg_pool", choices=_CHOICES)
def avg_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    exclude_padding_from_average: Array | bool = False,
    ceil_mode: Array | bool = False,
) -> Array:
    """The mean of each window, over all its elements or over those that are not padding.

    What ``ceil_mode`` adds beyond the padding never counts, as in torch.
    """
    pool = _pool(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    sums = pool.windows(x, fill=0).sum(axis=pool.axes)
    ones = np.ones((1, 1, *x.shape[2:]), np.float32)
    counts = pool.windows(ones, fill=0 if exclude_padding_from_average else 1).sum(axis=pool.axes)
    return np.asarray(sums / counts)


@op("l2_pool", choices=_CHOICES)
def l2_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    ceil_mode: Array | bool = False,
) -> Array:
    """The root of each window's sum of squares."""
    pool = _pool(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return np.asarray(np.sqrt(np.square(pool.windows(x, fill=0)).sum(axis=pool.axes)))


@dataclass(frozen=True, slots=True)
class _Pool:
    """Windows over the spatial axes; ``beyond`` is what rounding sizes up adds after them, or leaves."""

    kernel: list[int]
    strides: list[int]
    pads: list[tuple[int, int]]
    beyond: list[int]

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.kernel), 0))

    def windows(self, x: Array, *, fill: float) -> Array:
        outer = fill if fill == -np.inf else 0
        longer = [(0, max(0, extra)) for extra in self.beyond]
        whole = padded(padded(x, self.pads, fill=fill), longer, fill=outer)
        kept: Any = (..., *(slice(min(0, extra) or None) for extra in self.beyond))
        whole = whole[kept]
        return windows(whole, self.kernel, self.strides, [1] * len(self.kernel))


def _pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None,
    pad_type: str,
    pad: Array | None,
    ceil_mode: Array | bool,
) -> _Pool:
    kernel = [int(size) for size in kernel_sizes]
    check_counts("kernel_sizes", *kernel, least=1)
    steps = per_axis(strides, len(kernel))
    pads = padding(pad_type, pad, sizes=x.shape[2:], extents=kernel, strides=steps)
    beyond = [0] * len(kernel)
    if ceil_mode and pad_type in ("valid", "custom"):
        axes = zip(x.shape[2:], kernel, steps, pads, strict=True)
        beyond = [_beyond(size, width, step, around) for size, width, step, around in axes]
    return _Pool(kernel, steps, pads, beyond)


def _beyond(size: int, width: int, step: int, pads: tuple[int, int]) -> int:
    """What the last window lacks, unless it would begin in the padding after the last element.

    Negative is what is left over then.

    Source: ``spatial_dimensions_out_shape`` of coremltools, which does as torch does.
    """
    before, after = pads
    outputs = -(-(size + before + after - width) // step) + 1
    if (outputs - 1) * step >= size + before and before + after > 0:
        outputs -= 1
    return (outputs - 1) * step + width - (size + before + after)
