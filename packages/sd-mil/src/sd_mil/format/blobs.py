"""weight.bin: "MIL blob storage", version 2, mapped and never copied.

::

    0    u32 count, u32 version = 2, zeros up to 64
    N    u32 0xDEADBEEF, u32 dtype, u64 bytes, u64 start of the data, u64 padding bits, zeros up to 64
    ...  the data, padded to a multiple of 64

A constant refers to N, the record, not to the data. All numbers are little-endian. The padding field is
not checked: coremltools 7 leaves garbage there.

Source: apple/coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.files import refuse_foreign
from sd_mil.format.values import known_shape
from sd_mil.ir.dtypes import BLOB_DTYPES, stored_bytes, stored_dtype
from sd_mil.ir.program import Blob, Constant, TensorType

ALIGNMENT = 64
SENTINEL = 0xDEADBEEF
VERSION = 2

_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQ")

_Bytes: TypeAlias = "npt.NDArray[np.uint8]"


class WeightFiles:
    """The weight files of one package, each mapped once, when a constant first asks for it."""

    def __init__(self, locate: Callable[[str], Path]) -> None:
        """``locate`` turns the file name that a constant carries into a path inside the package."""
        self._locate = locate
        self._mapped: dict[str, _Bytes] = {}

    @property
    def total_bytes(self) -> int:
        """The size of all files mapped so far."""
        return sum(data.size for data in self._mapped.values())

    def constant(self, kind: TensorType, blob: Blob, where: str) -> Constant:
        """A view of the blob whose record is at the offset.

        The view is writable and copy-on-write (some engines insist on writable arrays); the file is never
        touched. Sub-byte types stay packed: a flat uint8 array.

        Raises:
            PackageError: the file is missing or truncated, or the record contradicts the declared type.
        """
        shape = known_shape(kind, where)
        if kind.dtype in ("string", "bool"):
            raise PackageError(f"expected {where} inline, got a {kind.dtype} in a weight file")
        value = self._view(blob.file, blob.offset, kind.dtype, shape)
        return Constant(kind, value, stored=value.nbytes, blob=blob)

    def _view(self, name: str, offset: int, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
        if name not in self._mapped:
            self._mapped[name] = _map(self._locate(name), name)
        data = self._mapped[name]
        start, size = _record(data, f"{name} at byte {offset}", offset, dtype=dtype)
        expected = stored_bytes(dtype, shape)
        if size != expected:
            raise PackageError(
                f"expected {expected} bytes for {dtype}{list(shape)}, got {size} in {name} at byte {offset}"
            )
        view = data[start : start + size].view(stored_dtype(dtype))
        return view if view.size != math.prod(shape) else view.reshape(shape)


def _map(path: Path, name: str) -> _Bytes:
    refuse_foreign(path, name)
    size = os.stat(path).st_size
    if size < ALIGNMENT:
        raise PackageError(f"expected a header of {ALIGNMENT} bytes in {name}, got a file of {size} bytes")
    data = np.memmap(path, dtype=np.uint8, mode="c").view(np.ndarray)
    _, version = _HEADER.unpack(data[: _HEADER.size].tobytes())
    if version != VERSION:
        raise UnsupportedModelError(f"expected weight storage of version {VERSION}, got {version} in {name}")
    return data


def _record(data: _Bytes, where: str, offset: int, *, dtype: str) -> tuple[int, int]:
    if offset < ALIGNMENT or offset % ALIGNMENT or offset > data.size - ALIGNMENT:
        raise PackageError(
            f"expected a record at a multiple of {ALIGNMENT} within {data.size} bytes, got {where}"
        )
    sentinel, number, size, start = _RECORD.unpack(data[offset : offset + _RECORD.size].tobytes())
    if sentinel != SENTINEL:
        raise PackageError(f"expected the mark {SENTINEL:#x}, got {sentinel:#x} in {where}")
    stored = BLOB_DTYPES.get(number, f"type {number}")
    if stored != dtype:
        raise PackageError(f"expected {dtype} as the program declares, got {stored} in {where}")
    if start % ALIGNMENT or start < offset + ALIGNMENT:
        raise PackageError(f"expected aligned data after the record, got data at byte {start} in {where}")
    if size > data.size - start:
        raise PackageError(
            f"expected {size} bytes at byte {start}, got the end of the file at {data.size} in {where}"
        )
    return start, size
