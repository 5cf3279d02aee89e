"""What was compressed already, in a temporary file until the package is written: memory stays small."""

from __future__ import annotations

import math
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
from sd_mil import Constant, TensorType
from sd_mil.ir import PIECE

#: Smaller constants stay in memory.
_WORTH_SPOOLING: Final = 1 << 16
#: coremltools keeps constants of fewer elements inside the program.
_SMALLEST_STORED: Final = 10


class Spool:
    """A temporary file that arrays are put into, by several threads; it goes when nothing refers to it."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder``: where the file is; None is the system's choice."""
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - as long as its tensors
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._end = 0

    def constant(self, array: npt.NDArray[Any], dtype: str, shape: tuple[int, ...]) -> Constant:
        """The array as a constant of a weight file, or inside the program if it is tiny.

        ``array`` is as constants are stored: packed bytes for types of less than a byte.
        """
        kind = TensorType(dtype, shape)
        stored = np.ascontiguousarray(array)
        is_packed = stored.size != math.prod(shape)
        if math.prod(shape) < _SMALLEST_STORED and not is_packed:
            return Constant(kind, stored.reshape(shape))
        if stored.nbytes < _WORTH_SPOOLING:
            return Constant(kind, stored if is_packed else stored.reshape(shape), stored.nbytes)
        return Constant(kind, self._put(stored, dtype, shape), stored.nbytes)

    def read(self, start: int, size: int) -> bytes:
        """Bytes that were put there."""
        with self._lock:
            self._file.seek(start)
            return self._file.read(size)

    def _put(self, array: npt.NDArray[Any], dtype: str, shape: tuple[int, ...]) -> Spooled:
        with self._lock:
            start = self._file.seek(self._end)
            self._file.write(array.data)
            self._end += array.nbytes
        return Spooled(dtype, shape, f"compressed weights at {start}", self, start, array.size, array.dtype)


@dataclass(frozen=True, slots=True)
class Spooled:
    """A :class:`sd_mil.ir.Tensor` in a spool."""

    dtype: str
    shape: tuple[int, ...]
    source: str
    spool: Spool = field(repr=False)
    start: int
    size: int
    stored: np.dtype[Any]

    def read(self) -> npt.NDArray[np.generic]:
        """All elements; packed bytes for types of less than a byte."""
        content = bytearray(self.spool.read(self.start, self.size * self.stored.itemsize))
        array = np.frombuffer(content, self.stored)
        return array if self.size != math.prod(self.shape) else array.reshape(self.shape)

    def pieces(self) -> Iterator[npt.NDArray[np.generic]]:
        """The same from front to back, flat."""
        width = self.stored.itemsize
        for first in range(0, self.size, PIECE):
            count = min(PIECE, self.size - first)
            yield np.frombuffer(self.spool.read(self.start + first * width, count * width), self.stored)
