"""Integers that stand for real numbers: value = scale (integer - zero point)."""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.ops.convolution import conv
from sd_mil.engines.reference.ops.windows import PAD_TYPES
from sd_mil.engines.reference.registry import Array, op
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.limits import check_broadcast


@op("quantize", choices={"output_dtype": ("int8", "uint8")})
def quantize(
    input: Array,  # noqa: A002 (the specification's name)
    scale: Array,
    output_dtype: str,
    zero_point: Array | None = None,
    axis: Array | None = None,
) -> Array:
    """round(x / scale) + zero_point, limited to the integer's range."""
    limits = np.iinfo(output_dtype)
    _check_sizes(input, scale, zero_point, axis)
    integers = np.rint(input / _along(scale, axis, input.ndim))
    if zero_point is not None:
        integers = integers + _along(zero_point.astype(np.float32), axis, input.ndim)
    return np.clip(integers, limits.min, limits.max).astype(NUMPY_DTYPES[output_dtype])


@op("dequantize")
def dequantize(
    input: Array,  # noqa: A002 (the specification's name)
    scale: Array,
    zero_point: Array | None = None,
    axis: Array | None = None,
) -> Array:
    """(x - zero_point) scale."""
    _check_sizes(input, scale, zero_point, axis)
    shifted = input.astype(np.float32)
    if zero_point is not None:
        shifted = shifted - _along(zero_point.astype(np.float32), axis, input.ndim)
    return np.asarray(shifted * _along(scale, axis, input.ndim))


def _along(values: Array, axis: Array | None, rank: int) -> Array:
    if axis is None or values.ndim == 0:
        return values
    shape = [1] * rank
    shape[int(axis)] = -1
    return values.reshape(shape)


def _check_sizes(x: Array, scale: Array, zero_point: Array | None, axis: Array | None) -> None:
    given = (scale,) if zero_point is None else (scale, zero_point)
    check_broadcast(x.shape, *(_along(one, axis, x.ndim).shape for one in given))


@op(
    "conv_quantized",
    choices={"quantization_type": ("linear",), "pad_type": PAD_TYPES},
    ignored=("quantization_type", "nbits"),
)
def conv_quantized(
    x: Array,
    weight: Array,
    quant_scale: Array,
    quant_bias: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    """``conv`` with the weight ``weight * quant_scale + quant_bias``, per tensor or per output channel."""
    scale, shift = (
        one.reshape(-1, *[1] * (weight.ndim - 1)) if one.size > 1 else one.reshape(())
        for one in (quant_scale, quant_bias)
    )
    check_broadcast(weight.shape, scale.shape, shift.shape)
    real = np.asarray(weight.astype(np.float32) * scale + shift)
    offset = None if bias is None else bias.astype(np.float32)
    return conv(x, real, offset, strides, pad_type, pad, dilations, groups)
