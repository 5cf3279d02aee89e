"""weight.bin: where each constant lies, known before a byte is written, and the writing, one piece at a time.

The format is "MIL blob storage", version 2: a header of 64 bytes, then for each blob a record of 64 bytes and
the data; records begin at multiples of 64. A constant refers to its record. All numbers are little-endian.

Source: apple/coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from .casting import cast
from .errors import WeightsMismatchError
from .tensors import forget

_ALIGNMENT: Final = 64
_SENTINEL: Final = 0xDEADBEEF
_VERSION: Final = 2
_HEADER: Final = struct.Struct("<II56x")
_RECORD: Final = struct.Struct("<IIQQ40x")
_NUMBERS: Final = {
    "float16": 1, "float32": 2, "uint8": 3, "int8": 4, "int16": 6, "uint16": 7, "int32": 14, "uint32": 15,
}  # fmt: skip

#: Elements that are cast and written at a time: large enough to be fast, small beside the libraries.
_PIECE: Final = 2**22


class Tensors(Protocol):
    """Tensors by name, as :class:`~sd_convert.Weights` has them."""

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        """The tensor called ``name``."""
        ...


@dataclass(frozen=True, slots=True)
class Blob:
    """A constant in the file; ``offset`` is that of its record, ``dtype`` numpy's name.

    ``content`` is the tensor of the checkpoint that it holds, or, where there is none, the elements.
    """

    offset: int
    dtype: str
    count: int
    content: str | bytes

    @property
    def bytes(self) -> int:
        """Size of the elements."""
        return self.count * np.dtype(self.dtype).itemsize


class Layout:
    """Gives every constant its place, in the order in which they come."""

    def __init__(self) -> None:
        """An empty file."""
        self.blobs: list[Blob] = []
        self._end = _ALIGNMENT

    def place(self, dtype: str, count: int, content: str | bytes) -> int:
        """The offset of the record of a new blob."""
        blob = Blob(self._end, dtype, count, content)
        self.blobs.append(blob)
        self._end = end_of(blob)
        return blob.offset


def end_of(blob: Blob) -> int:
    """Where the next record begins."""
    end = blob.offset + _ALIGNMENT + blob.bytes
    return end + -end % _ALIGNMENT


def renamed(blobs: tuple[Blob, ...], names: Mapping[str, str]) -> tuple[Blob, ...]:
    """The same blobs with the tensors under other names."""
    return tuple(
        replace(blob, content=names[blob.content]) if isinstance(blob.content, str) else blob
        for blob in blobs
    )


def write_blobs(
    path: Path, blobs: tuple[Blob, ...], tensors: Tensors, *, check: Callable[[], None] = lambda: None
) -> str:
    """Write weight.bin; tensors are read, cast and written one after another. Returns the file's sha256.

    ``check`` is called before each piece, and may raise to stop.

    Raises:
        LoweringError: a number that the blob's dtype cannot hold.
        WeightsMismatchError: a tensor has another number of elements than its blob.
    """
    sha = hashlib.sha256()
    with path.open("xb", buffering=0) as file:
        for piece in _pieces(blobs, tensors):
            check()
            sha.update(piece)
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
    return sha.hexdigest()


def _pieces(blobs: tuple[Blob, ...], tensors: Tensors) -> Iterator[memoryview]:
    """The file from front to back."""
    yield memoryview(_HEADER.pack(len(blobs), _VERSION))
    end = _ALIGNMENT
    for blob in blobs:
        start = blob.offset + _ALIGNMENT
        yield memoryview(bytes(blob.offset - end))
        yield memoryview(_RECORD.pack(_SENTINEL, _NUMBERS[blob.dtype], blob.bytes, start))
        if isinstance(blob.content, bytes):
            yield memoryview(blob.content)
        else:
            yield from _elements(blob, blob.content, tensors[blob.content])
        end = start + blob.bytes


def _elements(blob: Blob, name: str, array: npt.NDArray[Any]) -> Iterator[memoryview]:
    if array.size != blob.count:
        raise WeightsMismatchError(f"{name}: expected {blob.count} elements, got {array.size}")
    flat, dtype = np.ascontiguousarray(array).reshape(-1), np.dtype(blob.dtype)
    for start in range(0, blob.count, _PIECE):
        piece = cast(flat[start : start + _PIECE], dtype, name)
        yield piece.view(np.uint8).data
        forget(piece)
    forget(array)
