"""Arrays in a file, mapped: memory that the system may take back, because the file still has it.

::

    0     "SDMILARR", u32 version = 1, u32 zero, u64 length of the file, 32 B key, 32 B digest, zeros
    4096  the arrays in order, each padded to a multiple of 64

The digest is that of the arrays' sums, as u64, with wrap-around. Numbers are little-endian; arrays are as
this machine has them.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.generic]

_MAGIC, _VERSION = b"SDMILARR", 1
_HEADER = struct.Struct("<8sIIQ32s32s")
_START, _ALIGNMENT = 4096, 64


@dataclass(frozen=True, slots=True)
class Layout:
    """The dtype and shape of every array, and so where each one is."""

    arrays: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]

    @property
    def length(self) -> int:
        """Of the file, in bytes."""
        return _START + sum(_padded(dtype, shape) for dtype, shape in self.arrays)

    def views(self, data: npt.NDArray[np.uint8]) -> Iterator[tuple[Array, npt.NDArray[np.uint8]]]:
        """Every array of a file's bytes, and the same with its padding, as bytes."""
        start = _START
        for dtype, shape in self.arrays:
            size = math.prod(shape) * dtype.itemsize
            padded = data[start : start + _padded(dtype, shape)]
            yield padded[:size].view(dtype).reshape(shape), padded
            start += len(padded)


def write_arrays(file: IO[bytes], key: bytes, layout: Layout, arrays: Iterable[Array]) -> None:
    """Fill an empty file.

    Raises:
        OSError: the disk is full.
        ValueError: an array is not as the layout has it.
    """
    file.write(bytes(_START))
    digest = hashlib.sha256()
    for (dtype, shape), array in zip(layout.arrays, arrays, strict=True):
        if (array.dtype, array.shape) != (dtype, shape):
            raise ValueError(f"expected {dtype}{list(shape)}, got {array.dtype}{list(array.shape)}")
        content = np.zeros(_padded(dtype, shape), np.uint8)
        content[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        digest.update(_sum(content))
        file.write(content.data)
    file.seek(0)
    file.write(_HEADER.pack(_MAGIC, _VERSION, 0, layout.length, key, digest.digest()))
    file.flush()


def map_arrays(file: IO[bytes], key: bytes, layout: Layout) -> list[Array] | None:
    """The arrays of a file, mapped, copied on write; None when the file is not as it was written.

    Every byte is read once, to hold it against the digest.
    """
    if file.seek(0, 2) != layout.length:
        return None
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    data = np.ndarray(len(mapped), np.uint8, mapped)  # unlike frombuffer, its base is the map itself
    digest = hashlib.sha256()
    arrays = []
    for array, content in layout.views(data):
        arrays.append(array)
        digest.update(_sum(content))
        _drop(mapped)
    header = _HEADER.pack(_MAGIC, _VERSION, 0, layout.length, key, digest.digest())
    return arrays if data[: _HEADER.size].tobytes() == header else None


def _drop(mapped: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _sum(content: npt.NDArray[np.uint8]) -> bytes:
    return int(np.add.reduce(content.view(np.uint64))).to_bytes(8, "little")


def _padded(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
