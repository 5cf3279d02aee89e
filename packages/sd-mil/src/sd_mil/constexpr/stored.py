"""From constants as they are stored to the arrays that decoders and engines compute with."""

from __future__ import annotations

import math

import numpy as np

from sd_mil.constexpr.codec import Array
from sd_mil.constexpr.packing import unpack
from sd_mil.errors import UnsupportedModelError
from sd_mil.ir.dtypes import SUB_BYTE_BITS
from sd_mil.ir.narrow import NARROW_FLOATS, widened
from sd_mil.ir.program import Constant


def unpacked(constant: Constant) -> Array | str | tuple[str, ...]:
    """A constant as it is stored; of types that numpy lacks, integers as int8 or uint8, floats as fp32."""
    value, dtype = constant.value, constant.type.dtype
    if isinstance(value, str | tuple):
        return value
    if not isinstance(value, np.ndarray):
        raise UnsupportedModelError("expected a tensor or text as a parameter, got a dictionary")
    if dtype in NARROW_FLOATS:
        return widened(value, dtype)
    if dtype in SUB_BYTE_BITS:
        shape = tuple(size for size in constant.type.shape if size is not None)
        value = unpack(value, SUB_BYTE_BITS[dtype], math.prod(shape)).reshape(shape)
        value = _sign_extended(value) if dtype == "int4" else value
    return value


def _sign_extended(nibbles: Array) -> Array:
    return ((nibbles ^ 8).astype(np.int8) - 8).astype(np.int8)
