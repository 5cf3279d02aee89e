"""MIL's scalar types: their names, widths, and what numpy makes of them.

Sources: ``MIL.proto`` (``DataType``) and ``BlobDataType.hpp`` of apple/coremltools.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

#: ``MIL.proto``'s DataType.
PROTO_DTYPES = MappingProxyType(
    {
        1: "bool",
        2: "string",
        10: "fp16",
        11: "fp32",
        12: "fp64",
        13: "bf16",
        21: "int8",
        22: "int16",
        23: "int32",
        24: "int64",
        25: "int4",
        31: "uint8",
        32: "uint16",
        33: "uint32",
        34: "uint64",
        35: "uint4",
        36: "uint2",
        37: "uint1",
        38: "uint6",
        39: "uint3",
        40: "fp8e4m3fn",
        41: "fp8e5m2",
    }
)

#: Types of blobs in weight.bin.
BLOB_DTYPES = MappingProxyType(
    {
        1: "fp16",
        2: "fp32",
        3: "uint8",
        4: "int8",
        5: "bf16",
        6: "int16",
        7: "uint16",
        8: "int4",
        9: "uint1",
        10: "uint2",
        11: "uint4",
        12: "uint3",
        13: "uint6",
        14: "int32",
        15: "uint32",
        16: "fp8e4m3fn",
        17: "fp8e5m2",
    }
)

#: Types that numpy has too.
NUMPY_DTYPES: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {
        "bool": np.dtype(np.bool_),
        "fp16": np.dtype(np.float16),
        "fp32": np.dtype(np.float32),
        "fp64": np.dtype(np.float64),
        "int8": np.dtype(np.int8),
        "int16": np.dtype(np.int16),
        "int32": np.dtype(np.int32),
        "int64": np.dtype(np.int64),
        "uint8": np.dtype(np.uint8),
        "uint16": np.dtype(np.uint16),
        "uint32": np.dtype(np.uint32),
        "uint64": np.dtype(np.uint64),
    }
)

#: Bits per element of types that do not fill a byte: packed LSB first across bytes.
SUB_BYTE_BITS = MappingProxyType({"int4": 4, "uint4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint6": 6})

#: Types stored in whole bytes that numpy has no name for: their raw bits.
_RAW_DTYPES: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {"bf16": np.dtype(np.uint16), "fp8e4m3fn": np.dtype(np.uint8), "fp8e5m2": np.dtype(np.uint8)}
)


def stored_dtype(dtype: str) -> np.dtype[np.generic]:
    """The numpy dtype of a stored payload: uint8 for packed sub-byte types, raw bits for bf16 and fp8."""
    if dtype in SUB_BYTE_BITS:
        return np.dtype(np.uint8)
    if dtype in _RAW_DTYPES:
        return _RAW_DTYPES[dtype]
    return NUMPY_DTYPES[dtype]


def stored_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor takes in a file."""
    count = math.prod(shape)
    if dtype in SUB_BYTE_BITS:
        return -(-count * SUB_BYTE_BITS[dtype] // 8)
    return count * stored_dtype(dtype).itemsize
