"""Integers of less than a byte side by side, as :func:`sd_mil.constexpr.pack` has them, compiled."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_mil import constexpr

Array: TypeAlias = npt.NDArray[Any]

#: Elements from which on the loop is worth loading.
_MANY: Final = 1 << 16


def pack(values: Array, bits: int) -> Array:
    """The low ``bits`` of each integer, the first lowest: a flat uint8 array."""
    if values.size < _MANY or bits == 8:
        return constexpr.pack(values, bits)
    from ._loops import pack_eights

    flat = np.ascontiguousarray(values).reshape(-1).astype(np.uint8, copy=False)
    whole = flat.size // 8 * 8
    packed = np.empty(-(-flat.size * bits // 8), np.uint8)
    pack_eights(flat[:whole], bits, packed[: whole * bits // 8])
    if whole < flat.size:
        packed[whole * bits // 8 :] = constexpr.pack(flat[whole:], bits)
    return packed
