"""Compressed constants, decoded where they are used.

Arguments arrive in the dtype they are stored in (fp16 as fp16, sub-byte integers unpacked) and results leave
in the one that is declared: the arithmetic is coremltools' own, rounding included, so that the bits are the
same. The iOS 16 forms keep packed bytes and a ``shape``; the iOS 18 forms have typed sub-byte tensors.

Source: coremltools, ``decompress`` of the operations in ``defs/iOS16/constexpr_ops.py`` and
``defs/iOS18/compression.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from sd_mil.constexpr.packing import look_up, unpack
from sd_mil.engines.reference.registry import Array, op

#: Elements of a vector in a look-up table, at most. A file of n bytes decodes to 8 n vectors.
_LONGEST_VECTOR = 256


@op("constexpr_affine_dequantize", stored=True)
def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Array) -> Array:
    """(data - zero_point) * scale in fp32, per tensor or along one axis."""
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = quantized_data.shape[int(axis)]
    scales, zeros = (one.astype(np.float32).reshape(shape if one.ndim else ()) for one in (scale, zero_point))
    values = quantized_data.astype(np.float32)
    values -= zeros
    values *= scales
    return values.astype(scale.dtype, copy=False)


@op("constexpr_cast", choices={"output_dtype": ("fp32",)}, ignored=("output_dtype",), stored=True)
def constexpr_cast(source_val: Array) -> Array:
    """fp16 stored, fp32 meant."""
    return source_val.astype(np.float32)


@op("constexpr_lut_to_dense", stored=True)
def constexpr_lut_to_dense(
    indices: Array, lut: Array, shape: Array | None = None, vector_axis: Array | None = None
) -> Array:
    """Palettized weights: each index stands for an entry of a look-up table."""
    if shape is None:
        return _grouped_lookup(indices, lut, vector_axis)
    sizes = [int(size) for size in shape]
    bits = int(lut.size).bit_length() - 1
    return look_up(indices, bits, math.prod(sizes), lut).reshape(sizes)


def _grouped_lookup(indices: Array, lut: Array, vector_axis: Array | None) -> Array:
    """Tables per block: lut is [*groups, entries, vector], and an entry is a vector along one axis."""
    groups, entries, vector = lut.shape[:-2], lut.shape[-2], lut.shape[-1]
    if indices.size and int(indices.max()) >= entries:
        raise ValueError(f"expected indices below {entries}, got {int(indices.max())}")
    if vector == 1:
        return _spread(indices, lut[..., 0])
    if vector_axis is None:
        raise ValueError(f"expected a vector_axis for vectors of {vector}, got none")
    if vector > _LONGEST_VECTOR:
        raise ValueError(f"expected vectors of at most {_LONGEST_VECTOR} elements, got {vector}")
    axis, sizes = int(vector_axis), list(indices.shape)
    if not -len(groups) <= axis < len(groups):
        raise ValueError(f"expected a vector_axis of {len(groups)} axes, got {axis}")
    sizes[axis] *= vector
    return np.moveaxis(_spread(indices, lut), -1, axis % len(groups) + 1).reshape(sizes)


def _spread(indices: Array, tables: Array) -> Array:
    """``tables`` [*groups, entries, *entry] looked up block by block: [*indices, *entry]."""
    result = np.empty((*indices.shape, *tables.shape[indices.ndim + 1 :]), tables.dtype)
    for group, block in _blocks(tables.shape[: indices.ndim], indices.shape):
        result[block] = tables[group][indices[block]]
    return result


def _blocks(
    counts: tuple[int, ...], shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """The position of every block, and the slices of the tensor that it covers."""
    sizes = _block_sizes(counts, shape)
    for position in np.ndindex(*counts):
        pairs = zip(position, sizes, strict=True)
        yield position, tuple(slice(index * size, (index + 1) * size) for index, size in pairs)


def _block_sizes(counts: tuple[int, ...], shape: tuple[int, ...]) -> list[int]:
    if len(counts) != len(shape) or any(not n or size % n for n, size in zip(counts, shape, strict=True)):
        raise ValueError(f"expected blocks that divide {list(shape)}, got {list(counts)} of them")
    return [size // count for size, count in zip(shape, counts, strict=True)]


@op("constexpr_sparse_to_dense", stored=True)
def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None = None) -> Array:
    """Non-zero elements put where the mask has ones."""
    if shape is not None:
        sizes = [int(size) for size in shape]
        mask = unpack(mask, 1, math.prod(sizes)).reshape(sizes)
    result = np.zeros(mask.shape, nonzero_data.dtype)
    result[mask != 0] = nonzero_data
    return result


@op("constexpr_blockwise_shift_scale", stored=True)
def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """(data - offset) * scale, where each element of scale and offset covers a block of the data.

    Each step is rounded to the dtype of the scale, or to that of the offset if it is wider.
    """
    sizes = _block_sizes(scale.shape, data.shape)
    per_block = [part for count in scale.shape for part in (count, 1)]
    split = [part for count, size in zip(scale.shape, sizes, strict=True) for part in (count, size)]
    integral = data.dtype.kind in "iu"  # which fp16 holds exactly, and differences of bytes, too
    values = data.astype(np.float32).reshape(split)
    values = values if integral else _rounded(values, scale.dtype)
    if offset is not None:
        values -= offset.astype(np.float32).reshape(per_block)
        integral = integral and offset.dtype.kind in "iu"
        values = values if integral else _rounded(values, np.result_type(scale.dtype, offset.dtype))
    values *= scale.astype(np.float32).reshape(per_block)
    return values.astype(scale.dtype, copy=False).reshape(data.shape)


def _rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """fp32 values as ``dtype`` has them."""
    return values if dtype == np.float32 else values.astype(dtype).astype(np.float32)


@op("constexpr_lut_to_sparse", stored=True)
def constexpr_lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: Array | None = None
) -> tuple[Array, Array]:
    """Palettized non-zero elements; the result goes on to ``constexpr_sparse_to_dense``."""
    values = _grouped_lookup(constexpr_sparse_to_dense(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = np.repeat(mask, lut.shape[-1], axis=int(vector_axis))
    return mask, values[mask != 0]


@op("constexpr_sparse_blockwise_shift_scale", stored=True)
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """Quantized non-zero elements; the result goes on to ``constexpr_sparse_to_dense``."""
    values = constexpr_blockwise_shift_scale(
        constexpr_sparse_to_dense(nonzero_data, data_mask), scale, offset
    )
    return data_mask, values[data_mask != 0]
