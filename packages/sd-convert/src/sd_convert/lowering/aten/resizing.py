"""Images of other sizes: pixels repeated, averaged, or moved to channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sd_convert.errors import LoweringError
from sd_convert.lowering.builder import Builder
from sd_convert.lowering.registry import lowers
from sd_convert.lowering.values import Tensor, stored


@lowers("aten.upsample_nearest2d.vec")
def upsample_nearest(
    b: Builder, x: Tensor, size: Sequence[int] | None, scales: Sequence[float] | None
) -> Tensor:
    """The nearest pixel of a smaller image, as torch counts them.

    Latents of odd sizes are halved with rounding up and enlarged to what they were: twice the size, less the
    last row or column.
    """
    height, width = x.shape[2:]
    rows, columns = _nearest(height, size, scales, 0), _nearest(width, size, scales, 1)
    factors = -(-len(rows) // height), -(-len(columns) // width)
    if not _repeats(rows, factors[0]) or not _repeats(columns, factors[1]):
        gathered = b.emit("gather", x=b.plain(x), indices=rows, axis=2)
        return stored(b.emit("gather", x=gathered, indices=columns, axis=3))
    enlarged = b.emit(
        "upsample_nearest_neighbor",
        x=b.plain(x),
        scale_factor_height=float(factors[0]),
        scale_factor_width=float(factors[1]),
    )
    return stored(_cropped(b, enlarged, len(rows), len(columns)))


def _nearest(
    length: int, size: Sequence[int] | None, scales: Sequence[float] | None, axis: int
) -> npt.NDArray[np.int32]:
    """For each new pixel of an axis, the old one that it repeats; torch itself says which."""
    indices = functional.interpolate(
        torch.arange(length, dtype=torch.float64)[None, None],
        size=None if size is None else size[axis],
        scale_factor=scales[axis] if size is None and scales is not None else None,
        mode="nearest",
    )
    return indices[0, 0].numpy().astype(np.int32)


def _repeats(indices: npt.NDArray[np.int32], factor: int) -> bool:
    """Whether every pixel comes ``factor`` times, but for those that are missing at the end."""
    return bool(np.array_equal(indices, np.arange(len(indices)) // factor))


def _cropped(b: Builder, x: Any, height: int, width: int) -> Any:
    batch, channels, *size = x.shape
    if tuple(size) == (height, width):
        return x
    return b.emit("slice_by_index", x=x, begin=[0] * 4, end=[batch, channels, height, width])


@lowers("aten.pixel_unshuffle.default")
def pixel_unshuffle(b: Builder, x: Tensor, downscale_factor: int) -> Tensor:
    """Squares of pixels to channels."""
    return stored(b.emit("pixel_unshuffle", x=b.plain(x), downscale_factor=np.uint32(downscale_factor)))


@lowers("aten.avg_pool2d.default")
def avg_pool(
    b: Builder,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Means of windows; those that reach over the edge, of what they cover.

    Raises:
        LoweringError: padding, or another divisor, which no network here has.
    """
    if any(padding) or divisor_override is not None:
        raise LoweringError(
            f"avg_pool2d: expected no padding and no divisor, got {list(padding)} and {divisor_override}"
        )
    del count_include_pad  # there is none
    pooled = b.emit(
        "avg_pool",
        x=b.plain(x),
        kernel_sizes=tuple(kernel_size),
        strides=tuple(stride) or tuple(kernel_size),
        pad_type="custom",
        pad=(0, 0, 0, 0),
        exclude_padding_from_average=True,
        ceil_mode=ceil_mode,
    )
    return stored(pooled)
