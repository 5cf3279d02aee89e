"""Casting to the program's arithmetic, refusing to lose a number on the way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sd_convert.errors import LoweringError


def cast(array: npt.NDArray[np.generic], dtype: np.dtype[np.generic], name: str) -> npt.NDArray[np.generic]:
    """``array`` in ``dtype``; the array itself if it has that already.

    Raises:
        LoweringError: a finite number becomes infinite: float16 ends at 65,504.
    """
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if not np.isfinite(result).all() and np.isfinite(array).all():
        largest = float(np.abs(array).max())
        raise LoweringError(
            f"{name}: expected numbers that {dtype} can hold, got {largest:g}; convert with float32 precision"
        )
    return result
