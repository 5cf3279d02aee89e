"""Floats that numpy has not: raw bits as fp32, and back.

Sources: arXiv:2209.05433, table 1 (fp8); bf16 is the upper half of fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sd_mil.ir.dtypes import stored_dtype

#: As bits: exponent, mantissa.
NARROW_FLOATS = {"bf16": (8, 7), "fp8e4m3fn": (4, 3), "fp8e5m2": (5, 2)}

_Bits = npt.NDArray[np.generic]


def widened(bits: _Bits, dtype: str) -> npt.NDArray[np.float32]:
    """Raw bits as fp32. ``fp8e4m3fn`` has no infinity: its largest exponent is a number, but for NaN."""
    wide: npt.NDArray[np.float32]
    wide = (bits.astype(np.uint32) << 16).view(np.float32) if dtype == "bf16" else _fp8(dtype)[bits]
    return wide


def narrowed_bits(numbers: Sequence[float], dtype: str) -> _Bits:
    """The raw bits of numbers that :func:`widened` has made; every NaN is one of the type's.

    Raises:
        ValueError: a number that the type has not.
    """
    exact = np.array(numbers, np.float64)
    with np.errstate(over="ignore"):
        wide = exact.astype(np.float32)
    codes = np.arange(1 << sum(NARROW_FLOATS[dtype]) + 1, dtype=stored_dtype(dtype))
    known, wanted = widened(codes, dtype).view(np.uint32), wide.view(np.uint32)
    order = np.argsort(known, kind="stable")
    found = order[np.searchsorted(known, wanted, sorter=order).clip(max=known.size - 1)]
    wrong = np.flatnonzero((known[found] != wanted) | ((wide != exact) & ~np.isnan(exact)))
    if wrong.size:
        raise ValueError(f"{numbers[int(wrong[0])]}, which {dtype} has not")
    chosen: _Bits = codes[found]
    return chosen


@lru_cache
def _fp8(dtype: str) -> npt.NDArray[np.float32]:
    """The number of each code."""
    exponent_bits, mantissa_bits = NARROW_FLOATS[dtype]
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
    return np.where(codes >= 128, -values, values).astype(np.float32)
