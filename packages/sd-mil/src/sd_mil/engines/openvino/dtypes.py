"""MIL dtypes as the engine computes them.

Every float is computed in one type (fp32, or bf16 inside the plugin when asked), because x86 processors
have next to no fp16 arithmetic; casts between float types therefore vanish. Every integer is computed as
int32, the only integer that MIL's arithmetic knows; bool stays bool.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sd_mil.errors import UnsupportedModelError
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.program import TensorType

_COMPUTED: dict[str, np.dtype[Any]] = {
    "f": np.dtype(np.float32),
    "i": np.dtype(np.int32),
    "u": np.dtype(np.int32),
    "b": np.dtype(np.bool_),
}


def computed_dtype(dtype: str, *, where: str) -> np.dtype[Any]:
    """The type in which values of MIL's ``dtype`` are computed: ``fp16 -> float32``, ``uint16 -> int32``.

    Raises: UnsupportedModelError for strings and sub-byte types, which no tensor of a graph has.
    """
    if dtype not in NUMPY_DTYPES:
        raise UnsupportedModelError(
            f"expected one of {', '.join(NUMPY_DTYPES)} as dtype of {where}, got {dtype!r}"
        )
    return _COMPUTED[NUMPY_DTYPES[dtype].kind]


def computed_type(kind: TensorType, *, where: str) -> TensorType:
    """The type as values of it are computed: ``fp16[2] -> fp32[2]``.

    Raises: UnsupportedModelError as :func:`computed_dtype`.
    """
    names = {"f": "fp32", "i": "int32", "b": "bool"}
    return replace(kind, dtype=names[computed_dtype(kind.dtype, where=where).kind])
