"""Palettization: indices into look-up tables, of the tensor, of groups or blocks; of numbers or vectors."""

from __future__ import annotations

import math

import numpy as np

from sd_mil.constexpr.blocks import blocks
from sd_mil.constexpr.codec import Array, codec
from sd_mil.constexpr.packing import look_up

#: Elements of a vector in a look-up table, at most. A file of n bytes decodes to 8 n vectors.
_LONGEST_VECTOR = 256


@codec("constexpr_lut_to_dense")
def constexpr_lut_to_dense(
    indices: Array, lut: Array, shape: Array | None = None, vector_axis: Array | None = None
) -> Array:
    """Palettized weights: each index stands for an entry of a look-up table."""
    if shape is None:
        return grouped_lookup(indices, lut, vector_axis)
    sizes = [int(size) for size in shape]
    bits = int(lut.size).bit_length() - 1
    return look_up(indices, bits, math.prod(sizes), lut).reshape(sizes)


def grouped_lookup(indices: Array, lut: Array, vector_axis: Array | None) -> Array:
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
    for group, block in blocks(tables.shape[: indices.ndim], indices.shape):
        result[block] = tables[group][indices[block]]
    return result
