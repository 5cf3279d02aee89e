"""Sparse weights: a mask, and the elements that are not zero."""

from __future__ import annotations

import math

import numpy as np

from sd_mil.constexpr.codec import Array, codec
from sd_mil.constexpr.packing import unpack


@codec("constexpr_sparse_to_dense")
def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None = None) -> Array:
    """Non-zero elements put where the mask has ones."""
    if shape is not None:
        sizes = [int(size) for size in shape]
        mask = unpack(mask, 1, math.prod(sizes)).reshape(sizes)
    result = np.zeros(mask.shape, nonzero_data.dtype)
    result[mask != 0] = nonzero_data
    return result
