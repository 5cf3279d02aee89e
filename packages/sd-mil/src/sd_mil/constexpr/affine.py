"""Affine quantization, per tensor or along one axis (iOS 16)."""

from __future__ import annotations

import numpy as np

from sd_mil.constexpr.codec import Array, codec


@codec("constexpr_affine_dequantize")
def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Array) -> Array:
    """(data - zero_point) * scale in fp32, per tensor or along one axis."""
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = quantized_data.shape[int(axis)]
    scales, zeros = (one.astype(np.float32).reshape(shape if one.ndim else ()) for one in (scale, zero_point))
    values = quantized_data.astype(np.float32)
    values -= zeros
    values *= scales
    return values.astype(scale.dtype, copy=False)
