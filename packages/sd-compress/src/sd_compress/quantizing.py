"""Linear quantization: integers, a scale, and where zero is.

``(data - offset) * scale`` is what ``constexpr_affine_dequantize`` and
``constexpr_blockwise_shift_scale`` compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .errors import UnsuitableError
from .granularity import PerBlock, PerChannel
from .palettes import check_finite
from .schemes import Linear
from .weights import Array, Weight

#: The integers of each dtype.
RANGES: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}
)


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantized weight.

    ``data`` int8 or uint8 of the weight's shape, in the range of ``dtype``; ``scale`` in the weight's dtype,
    as many numbers along each axis as there are blocks; ``offset`` like the scale, in the dtype of the data,
    or None for 0. ``axis``: the channels' where there is a scale for each.
    """

    dtype: str
    data: npt.NDArray[Any]
    scale: Array
    offset: npt.NDArray[Any] | None
    axis: int


def quantized(
    weight: Weight, values: Array, scheme: Linear, mask: npt.NDArray[np.bool_] | None = None
) -> Quantized:
    """``values`` of the weight's shape, quantized; those that ``mask`` leaves out become 0.

    Raises:
        UnsuitableError: elements that are not finite, or blocks that do not divide the inputs.
    """
    check_finite(values)
    shape = block_counts(weight, scheme)
    split = [part for count, size in zip(shape, values.shape, strict=True) for part in (count, size // count)]
    blocks = values.astype(np.float32).reshape(split)
    within = tuple(range(1, 2 * values.ndim, 2))
    low, high = blocks.min(axis=within, keepdims=True), blocks.max(axis=within, keepdims=True)
    scale, offset = _scale(low, high, scheme, values.dtype)
    first, last = RANGES[scheme.dtype]
    if scheme.mode == "symmetric":
        first = offset_of(scheme) - (last - offset_of(scheme))
    data = np.clip(np.rint(blocks / scale) + offset, first, last)
    with np.errstate(over="ignore"):
        is_too_large = np.isinf(((data - offset) * scale).astype(values.dtype))
    data -= is_too_large * np.sign(data - offset)  # zero was rounded
    data = data.astype(np.int8 if scheme.dtype.startswith("int") else np.uint8).reshape(values.shape)
    is_shifted = bool(offset.any())
    kept = None if not is_shifted else offset.astype(data.dtype).reshape(shape)
    if mask is not None:
        data = np.where(mask, data, 0).astype(data.dtype)
    axis = scheme.granularity.axis if isinstance(scheme.granularity, PerChannel) else None
    chosen = weight.output_axis if axis is None else axis
    return Quantized(scheme.dtype, data, scale.astype(values.dtype).reshape(shape), kept, chosen)


def offset_of(scheme: Linear) -> int:
    """The integer that stands for zero in the symmetric mode."""
    return 0 if scheme.dtype.startswith("int") else (RANGES[scheme.dtype][1] + 1) // 2


def block_counts(weight: Weight, scheme: Linear) -> tuple[int, ...]:
    """How many scales there are along each axis.

    Raises:
        UnsuitableError: there is no such axis, or the blocks do not divide it.
    """
    granularity, shape = scheme.granularity, weight.shape
    counts = [1] * len(shape)
    if isinstance(granularity, PerChannel):
        axis = weight.output_axis if granularity.axis is None else granularity.axis
        if axis >= len(shape):
            raise UnsuitableError(f"axis {axis} of {len(shape)}")
        counts[axis] = shape[axis]
    elif isinstance(granularity, PerBlock):
        inputs, size = shape[weight.input_axis], granularity.block_size
        if len(shape) < 2 or inputs % size:
            raise UnsuitableError(f"{inputs} inputs are not divisible by blocks of {size}")
        counts[weight.output_axis] = shape[weight.output_axis]
        counts[weight.input_axis] = inputs // size
    return tuple(counts)


def _scale(low: Array, high: Array, scheme: Linear, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The scale as the file will have it, in fp32, and the integer that stands for zero."""
    first, last = RANGES[scheme.dtype]
    if scheme.mode == "symmetric":
        middle = offset_of(scheme)
        largest = np.maximum(np.abs(low), np.abs(high))
        scale = rounded_scale(largest / (last - middle), largest, dtype)
        return scale, np.full_like(scale, middle)
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    scale = rounded_scale((high - low) / (last - first), np.maximum(-low, high), dtype)
    return scale, np.clip(np.rint(first - low / scale), first, last)


def rounded_scale(scale: Array, largest: Array, dtype: np.dtype[Any]) -> Array:
    """As ``dtype`` has it, so that ``largest`` does not become infinite.

    One that would be zero is the least normal number, so that it can be divided by.
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        rounded = scale.astype(dtype)
        is_too_large = np.isinf((rounded.astype(np.float32) * np.rint(largest / scale)).astype(dtype))
    rounded = np.where(is_too_large, np.nextafter(rounded, dtype.type(0)), rounded)
    return np.where(rounded > 0, rounded, np.finfo(dtype).smallest_normal).astype(np.float32)
