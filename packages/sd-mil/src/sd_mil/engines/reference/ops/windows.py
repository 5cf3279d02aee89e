"""What convolutions and poolings share: padding rules and windows over the spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sd_mil.engines.reference.registry import Array, check_counts
from sd_mil.ir.limits import check_computed

PAD_TYPES = ("valid", "custom", "same", "same_lower")


def per_axis(values: Array | None, rank: int) -> list[int]:
    """A parameter of one integer per spatial axis; 1 everywhere when it is left out."""
    if values is None:
        return [1] * rank
    check_counts("strides and dilations", *values, least=1)
    return [int(value) for value in values]


def padding(
    pad_type: str, pad: Array | None, *, sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Zeros before and after each spatial axis.

    ``extents`` are the dilated kernel sizes. ``same`` puts the odd one at the end, ``same_lower`` at the
    beginning, so that the output has ceil(size / stride) elements.
    """
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        flat = [0] * (2 * len(sizes)) if pad is None else [int(value) for value in pad]
        check_counts("paddings", *flat)
        return list(zip(flat[::2], flat[1::2], strict=True))
    totals = [
        max(0, (-(-size // stride) - 1) * stride + extent - size)
        for size, extent, stride in zip(sizes, extents, strides, strict=True)
    ]
    if pad_type == "same":
        return [(total // 2, total - total // 2) for total in totals]
    return [(total - total // 2, total // 2) for total in totals]


def padded(x: Array, pads: Sequence[tuple[int, int]], *, fill: float = 0) -> Array:
    """``x`` with so many elements of ``fill`` before and after its last axes.

    Raises:
        ValueError: it would be too large.
    """
    around = [(0, 0)] * (x.ndim - len(pads)) + list(pads)
    check_computed(*(size + before + after for size, (before, after) in zip(x.shape, around, strict=True)))
    return np.pad(x, around, constant_values=fill)


def windows(x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """Views of every window over the trailing axes of ``x``: [..., *outputs, *kernel], without a copy."""
    rank = len(kernel)
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    axes: Any = tuple(range(x.ndim - rank, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view(x, extents, axis=axes)
    steps: Any = (..., *[slice(None, None, step) for step in (*strides, *dilations)])
    return np.asarray(view[steps])
