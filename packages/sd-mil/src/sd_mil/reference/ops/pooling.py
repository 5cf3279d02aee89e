"""Poolings in one, two or three spatial dimensions."""

from __future__ import annotations

import numpy as np

from sd_mil.reference.ops.windows import PAD_TYPES, padding, per_axis, windows
from sd_mil.reference.registry import Array, op

#: Rounding output sizes up is not supported.
_CHOICES = {"pad_type": PAD_TYPES, "ceil_mode": (False,)}


@op("max_pool", choices=_CHOICES, ignored=("ceil_mode",))
def max_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
) -> Array:
    """The maximum of each window; padding never wins."""
    view = _windows(x, kernel_sizes, strides, pad_type, pad, fill=-np.inf)
    return np.asarray(view.max(axis=_kernel_axes(x)))


@op("avg_pool", choices=_CHOICES, ignored=("ceil_mode",))
def avg_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    exclude_padding_from_average: Array | bool = False,
) -> Array:
    """The mean of each window, over all its elements or over those that are not padding."""
    axes = _kernel_axes(x)
    sums = _windows(x, kernel_sizes, strides, pad_type, pad, fill=0).sum(axis=axes)
    if not exclude_padding_from_average:
        return np.asarray(sums / np.prod(kernel_sizes).astype(np.float32))
    ones = np.ones((1, 1, *x.shape[2:]), np.float32)
    return np.asarray(sums / _windows(ones, kernel_sizes, strides, pad_type, pad, fill=0).sum(axis=axes))


def _kernel_axes(x: Array) -> tuple[int, ...]:
    return tuple(range(2 - x.ndim, 0))


def _windows(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None,
    pad_type: str,
    pad: Array | None,
    *,
    fill: float,
) -> Array:
    kernel = [int(size) for size in kernel_sizes]
    steps = per_axis(strides, len(kernel))
    pads = padding(pad_type, pad, sizes=x.shape[2:], extents=kernel, strides=steps)
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    return windows(padded, kernel, steps, [1] * len(kernel))
