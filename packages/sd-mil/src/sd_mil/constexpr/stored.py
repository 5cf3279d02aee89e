"""From constants as they are stored to the arrays that decoders and engines compute with."""

from __future__ import annotations

import math

import numpy as np

from sd_mil.constexpr.codec import Array
from sd_mil.constexpr.packing import unpack
from sd_mil.errors import UnsupportedModelError
from sd_mil.ir.dtypes import SUB_BYTE_BITS
from sd_mil.ir.program import Constant

#: Floats that numpy has not, as bits: exponent, mantissa.
NARROW_FLOATS = {"bf16": (8, 7), "fp8e4m3fn": (4, 3), "fp8e5m2": (5, 2)}


def unpacked(constant: Constant) -> Array | str | tuple[str, ...]:
    """A constant as it is stored; of types that numpy lacks, integers as int8 or uint8, floats as fp32."""
    value, dtype = constant.value, constant.type.dtype
    if isinstance(value, str | tuple):
        return value
    if not isinstance(value, np.ndarray):
        raise UnsupportedModelError("expected a tensor or text as a parameter, got a dictionary")
    if dtype in NARROW_FLOATS:
        return _widened(value, dtype)
    if dtype in SUB_BYTE_BITS:
        shape = tuple(size for size in constant.type.shape if size is not None)
        value = unpack(value, SUB_BYTE_BITS[dtype], math.prod(shape)).reshape(shape)
        value = _sign_extended(value) if dtype == "int4" else value
    return value


def _sign_extended(nibbles: Array) -> Array:
    return ((nibbles ^ 8).astype(np.int8) - 8).astype(np.int8)


def _widened(bits: Array, dtype: str) -> Array:
    """Raw bits as fp32. ``fp8e4m3fn`` has no infinity: its largest exponent is a number, but for NaN.

    Source: arXiv:2209.05433, table 1.
    """
    exponent_bits, mantissa_bits = NARROW_FLOATS[dtype]
    if dtype == "bf16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    codes = np.arange(256)
    exponents = (codes >> mantissa_bits) & (2**exponent_bits - 1)
    mantissas = (codes & (2**mantissa_bits - 1)) / 2**mantissa_bits
    bias = 2 ** (exponent_bits - 1) - 1
    normal = np.ldexp(1 + mantissas, exponents - bias)
    values = np.where(exponents == 0, np.ldexp(mantissas, 1 - bias), normal)
    if dtype == "fp8e4m3fn":
        values[(codes & 0x7F) == 0x7F] = np.nan
    else:
        special = exponents == 2**exponent_bits - 1
        values[special] = np.where(mantissas[special] == 0, np.inf, np.nan)
    return np.where(codes >= 128, -values, values).astype(np.float32)[bits]
