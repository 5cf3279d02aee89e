"""Sparse weights whose other elements are palettized or quantized too (iOS 18)."""

from __future__ import annotations

import numpy as np

from sd_mil.constexpr.blockwise import constexpr_blockwise_shift_scale
from sd_mil.constexpr.codec import Array, codec
from sd_mil.constexpr.palette import grouped_lookup
from sd_mil.constexpr.sparse import constexpr_sparse_to_dense


@codec("constexpr_lut_to_sparse")
def constexpr_lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, vector_axis: Array | None = None
) -> tuple[Array, Array]:
    """Palettized non-zero elements; the result goes on to ``constexpr_sparse_to_dense``."""
    values = grouped_lookup(constexpr_sparse_to_dense(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = np.repeat(mask, lut.shape[-1], axis=int(vector_axis))
    return mask, values[mask != 0]


@codec("constexpr_sparse_blockwise_shift_scale")
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """Quantized non-zero elements; the result goes on to ``constexpr_sparse_to_dense``."""
    values = constexpr_blockwise_shift_scale(
        constexpr_sparse_to_dense(nonzero_data, data_mask), scale, offset
    )
    return data_mask, values[data_mask != 0]
