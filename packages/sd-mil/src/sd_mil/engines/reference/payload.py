"""From stored constants and declared dtypes to the arrays that are computed with."""

from __future__ import annotations

import numpy as np

from sd_mil.constexpr.stored import unpacked
from sd_mil.engines.reference.registry import Array
from sd_mil.errors import UnsupportedModelError
from sd_mil.ir.dtypes import NUMPY_DTYPES, SUB_BYTE_BITS
from sd_mil.ir.narrow import NARROW_FLOATS
from sd_mil.ir.program import Constant


def computed_dtype(dtype: str, where: str) -> np.dtype[np.generic]:
    """The numpy dtype in which values of a MIL dtype are computed: fp32 for narrower floats.

    Raises:
        UnsupportedModelError: a dtype that is not known.
    """
    if dtype in ("fp16", *NARROW_FLOATS):
        return np.dtype(np.float32)
    if dtype == "string":
        return np.dtype(object)
    if dtype in SUB_BYTE_BITS:
        return np.dtype(np.int8 if dtype.startswith("int") else np.uint8)
    if dtype not in NUMPY_DTYPES:
        raise UnsupportedModelError(f"expected a dtype that numpy computes with, got {dtype} in {where}")
    return NUMPY_DTYPES[dtype]


def computed(array: Array, dtype: str) -> Array:
    """The array in the dtype that values declared ``dtype`` are computed in."""
    return np.asarray(array).astype(computed_dtype(dtype, "a value"), copy=False)


def dense(constant: Constant) -> Array | str | tuple[str, ...]:
    """A constant as an op takes it: text as it is, numbers as an array in their computed dtype."""
    value = unpacked(constant)
    return computed(value, constant.type.dtype) if isinstance(value, np.ndarray) else value
