"""fp32 weights stored as fp16 (iOS 16)."""

from __future__ import annotations

import numpy as np

from sd_mil.constexpr.codec import Array, codec


@codec("constexpr_cast", choices={"output_dtype": ("fp32",)}, ignored=("output_dtype",))
def constexpr_cast(source_val: Array) -> Array:
    """fp16 stored, fp32 meant."""
    return source_val.astype(np.float32)
