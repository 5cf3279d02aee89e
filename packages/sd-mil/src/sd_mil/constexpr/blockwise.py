"""Affine quantization in blocks along any axes (iOS 18)."""

from __future__ import annotations

import numpy as np

from sd_mil.constexpr.blocks import block_sizes
from sd_mil.constexpr.codec import Array, as_fp32, codec


@codec("constexpr_blockwise_shift_scale")
def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """(data - offset) * scale, where each element of scale and offset covers a block of the data.

    Each step is rounded to the dtype of the scale, or to that of the offset if it is wider.
    """
    sizes = block_sizes(scale.shape, data.shape)
    per_block = [part for count in scale.shape for part in (count, 1)]
    split = [part for count, size in zip(scale.shape, sizes, strict=True) for part in (count, size)]
    integral = data.dtype.kind in "iu"  # which fp16 holds exactly, and differences of bytes, too
    values = data.astype(np.float32).reshape(split)
    values = values if integral else as_fp32(values, scale.dtype)
    if offset is not None:
        values -= offset.astype(np.float32).reshape(per_block)
        integral = integral and offset.dtype.kind in "iu"
        values = values if integral else as_fp32(values, np.result_type(scale.dtype, offset.dtype))
    values *= scale.astype(np.float32).reshape(per_block)
    return values.astype(scale.dtype, copy=False).reshape(data.shape)
