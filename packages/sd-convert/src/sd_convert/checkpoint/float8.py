"""The numbers of 8-bit floats: both formats are subsets of float16, so that widening is exact.

Source: https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

#: safetensors' names of the two formats: ``torch.float8_e4m3fn`` and ``torch.float8_e5m2``.
FLOAT8_DTYPES: Final = ("F8_E4M3", "F8_E5M2")


def widen(raw: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.float16]:
    """The numbers of the bytes ``raw`` in one of ``FLOAT8_DTYPES``, exactly."""
    return _table(dtype)[raw]


@cache
def _table(dtype: str) -> npt.NDArray[np.float16]:
    """The number of each of the 256 bytes."""
    byte = np.arange(256, dtype=np.uint16)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (byte << np.uint16(8)).view(np.float16)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    subnormal = np.ldexp(mantissa / 8, -6)
    normal = np.ldexp(1 + mantissa / 8, exponent.astype(np.int32) - 7)
    magnitude = np.where(exponent == 0, subnormal, normal)
    magnitude[byte & 127 == 127] = np.nan  # E4M3FN has no infinities, and one NaN of each sign
    signed: npt.NDArray[np.float16] = np.copysign(magnitude, np.where(byte < 128, 1, -1)).astype(np.float16)
    return signed
