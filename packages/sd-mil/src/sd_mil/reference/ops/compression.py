"""Compressed constants, decoded where they are used.

The iOS 16 forms keep packed bytes and a ``shape``; the iOS 18 forms have typed sub-byte tensors, which
arrive unpacked.
"""

from __future__ import annotations

import math

import numpy as np

from sd_mil.reference.payload import unpack
from sd_mil.reference.registry import Array, op


@op("constexpr_affine_dequantize")
def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Array) -> Array:
    """(data - zero_point) * scale, per tensor or along one axis."""
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = -1
    scales, zeros = (one.astype(np.float32).reshape(shape if one.ndim else ()) for one in (scale, zero_point))
    return np.asarray((quantized_data.astype(np.float32) - zeros) * scales)


@op("constexpr_cast", choices={"output_dtype": ("fp32",)}, ignored=("output_dtype",))
def constexpr_cast(source_val: Array) -> Array:
    """fp16 stored, fp32 meant."""
    return source_val.astype(np.float32)


@op("constexpr_lut_to_dense")
def constexpr_lut_to_dense(
    indices: Array, lut: Array, shape: Array | None = None, vector_axis: Array | None = None
) -> Array:
    """Palettized weights: each index stands for an entry of a look-up table."""
    if shape is None:
        return _grouped_lookup(indices, lut, vector_axis)
    sizes = [int(size) for size in shape]
    bits = int(lut.size).bit_length() - 1
    return np.asarray(lut[unpack(indices, bits, math.prod(sizes))]).reshape(sizes)


def _grouped_lookup(indices: Array, lut: Array, vector_axis: Array | None) -> Array:
    """Tables per block: lut is [*groups, entries, vector], and an entry is a vector along one axis."""
    groups = lut.shape[: indices.ndim]
    blocks = [size // count for size, count in zip(indices.shape, groups, strict=True)]
    where = [
        (np.arange(size) // block).reshape([-1 if axis == own else 1 for axis in range(indices.ndim)])
        for own, (size, block) in enumerate(zip(indices.shape, blocks, strict=True))
    ]
    entries = np.asarray(lut[(*where, indices)])
    if vector_axis is None:
        return entries.squeeze(-1)
    axis = int(vector_axis) % indices.ndim
    sizes = list(indices.shape)
    sizes[axis] *= lut.shape[-1]
    return np.moveaxis(entries, -1, axis + 1).reshape(sizes)


@op("constexpr_sparse_to_dense")
def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None = None) -> Array:
    """Non-zero elements put where the mask has ones."""
    if shape is not None:
        sizes = [int(size) for size in shape]
        mask = unpack(mask, 1, math.prod(sizes)).reshape(sizes)
    result = np.zeros(mask.shape, nonzero_data.dtype)
    result[mask != 0] = nonzero_data
    return result


@op("constexpr_blockwise_shift_scale")
def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """(data - offset) * scale, where each element of scale and offset covers a block of the data."""
    shifted = data.astype(np.float32)
    if offset is not None:
        shifted = shifted - _blown_up(offset, data.shape)
    return np.asarray(shifted * _blown_up(scale, data.shape))


def _blown_up(blocks: Array, shape: tuple[int, ...]) -> Array:
    result = blocks.astype(np.float32)
    for axis, (size, count) in enumerate(zip(shape, blocks.shape, strict=True)):
        result = np.repeat(result, size // count, axis=axis)
    return result


@op("constexpr_lut_to_sparse")
def constexpr_lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: Array | None = None
) -> tuple[Array, Array]:
    """Palettized non-zero elements; the result goes on to ``constexpr_sparse_to_dense``."""
    values = _grouped_lookup(constexpr_sparse_to_dense(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = np.repeat(mask, lut.shape[-1], axis=int(vector_axis))
    return mask, values[mask != 0]


@op("constexpr_sparse_blockwise_shift_scale")
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """Quantized non-zero elements; the result goes on to ``constexpr_sparse_to_dense``."""
    values = constexpr_blockwise_shift_scale(
        constexpr_sparse_to_dense(nonzero_data, data_mask), scale, offset
    )
    return data_mask, values[data_mask != 0]
