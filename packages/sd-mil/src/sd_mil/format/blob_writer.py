"""weight.bin, written: where each constant lies, known before a byte is written, then one piece at a time.

The layout is that of :mod:`sd_mil.format.blobs`.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sd_mil.format.blobs import ALIGNMENT, SENTINEL, VERSION
from sd_mil.ir.dtypes import BLOB_DTYPES, SUB_BYTE_BITS
from sd_mil.ir.program import Constant
from sd_mil.ir.tensors import Tensor, pieces
from sd_mil.ir.uses import storage_key

_HEADER = struct.Struct("<II56x")
_RECORD = struct.Struct("<IIQQQ32x")
_NUMBERS = {name: number for number, name in BLOB_DTYPES.items()}

#: Called before each piece is written; may raise to stop.
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class BlobLayout:
    """The blobs of a file in order; a constant that occurs twice has one."""

    blobs: tuple[Constant, ...]
    offsets: dict[Hashable, int]
    size: int

    @staticmethod
    def of(constants: Iterable[Constant]) -> BlobLayout:
        """The layout of constants in the order in which they come.

        Those that were read from a file keep the order they had there, so that a package written again has
        the same weight.bin; new ones follow.
        """
        distinct = {storage_key(constant): constant for constant in constants}
        ordered = sorted(distinct.items(), key=lambda item: _place(item[1]))
        offsets, end = {}, ALIGNMENT
        for key, constant in ordered:
            offsets[key] = _padded(end)
            end = offsets[key] + ALIGNMENT + constant.stored
        return BlobLayout(tuple(constant for _, constant in ordered), offsets, end)

    def offset(self, constant: Constant) -> int:
        """Of the record of a constant."""
        return self.offsets[storage_key(constant)]

    def write(self, path: Path, check: Check) -> str:
        """Write the file, which must not exist; tensors are read one after another. Returns its sha256.

        Raises:
            ValueError: a tensor has another size than it declares.
            OSError: the file cannot be written.
        """
        sha = hashlib.sha256()
        with path.open("xb", buffering=0) as file:
            for piece in self._pieces():
                check()
                sha.update(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
        return sha.hexdigest()

    def _pieces(self) -> Iterator[bytes | memoryview]:
        yield _HEADER.pack(len(self.blobs), VERSION)
        end = ALIGNMENT
        for constant in self.blobs:
            offset = self.offset(constant)
            yield bytes(offset - end)
            end = offset + ALIGNMENT
            number = _NUMBERS[constant.type.dtype]
            yield _RECORD.pack(SENTINEL, number, constant.stored, end, _unused_bits(constant))
            yield from _content(constant)
            end += constant.stored


def _content(constant: Constant) -> Iterator[memoryview]:
    left = constant.stored
    value = constant.content
    if not isinstance(value, np.ndarray | np.generic | Tensor):
        raise TypeError(f"expected numbers to store, got {type(value).__name__}")
    for piece in pieces(value):
        left -= piece.nbytes
        if left < 0:
            break
        yield piece.view(np.uint8).data
    if left:
        name = getattr(value, "source", constant.type)
        raise ValueError(f"expected {constant.stored} bytes of {name}, got {constant.stored - left}")


def _unused_bits(constant: Constant) -> int:
    """At the end of packed elements that do not fill their last byte."""
    bits = SUB_BYTE_BITS.get(constant.type.dtype)
    if bits is None:
        return 0
    return 8 * constant.stored - bits * math.prod(size or 0 for size in constant.type.shape)


def _place(constant: Constant) -> int:
    """Where it was in the file that it came from; a sort that is stable leaves the new ones at the end."""
    return constant.blob.offset if constant.blob is not None else 1 << 64


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
