"""Tensors that stay on disk until they are asked for, each by itself."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_convert.errors import CheckpointError

from .float8 import FLOAT8_DTYPES, widen

_FLOATS: Final[Mapping[str, np.dtype[np.floating[Any]]]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}

_INTEGERS: Final[Mapping[str, np.dtype[np.integer[Any]]]] = {
    f"{kind}{8 * size}": np.dtype(f"<{kind.lower()}{size}") for kind in "IU" for size in (1, 2, 4, 8)
}

#: Dtypes that can be read as numbers. bfloat16 is widened to float32, and 8-bit floats to float16, which hold
#: them exactly.
READABLE_DTYPES: Final = (*_FLOATS, "BF16", *FLOAT8_DTYPES)


#: A hash that covers the bytes of a file from a start to a stop, and perhaps others.
HashBytes: TypeAlias = Callable[[Path, int, int], str]


class LazyTensor(Protocol):
    """A tensor that says what it is at once, and is read, or computed, only when it is asked for."""

    @property
    def dtype(self) -> str:
        """The format's name of the dtype (``F16``, ``BF16``, ``F32``, ...)."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that :meth:`read` gives."""
        ...

    @property
    def bytes(self) -> int:
        """Size of the elements in ``dtype``."""
        ...

    def read(self) -> npt.NDArray[np.generic]:
        """The elements; bfloat16 as float32, 8-bit floats as float16, and as float32 where they have a scale.

        Raises:
            CheckpointError: the dtype is none of ``READABLE_DTYPES``.
        """
        ...

    def identity(self, hash_bytes: HashBytes) -> str:
        """What the elements follow from, as text: bytes of files, places in them, and what is computed."""
        ...


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies: ``start`` and ``stop`` are bytes from the start of the mapped file, ``data``.

    ``transposed``: the file has the matrix with rows and columns exchanged; ``shape`` is that of the result.
    ``scale``: what the elements are multiplied by, one number or one for each row as the file has them.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    file: Path
    data: npt.NDArray[np.uint8]
    transposed: bool = False
    scale: TensorEntry | None = None

    @property
    def bytes(self) -> int:
        """Size in the file."""
        return self.stop - self.start

    def read(self) -> npt.NDArray[np.generic]:
        """A read-only view of the file; what is widened or scaled is a copy. See :class:`LazyTensor`."""
        shape = self.shape[::-1] if self.transposed else self.shape
        array = self._scaled(self._elements()).reshape(shape)
        return array.T if self.transposed else array

    def _scaled(self, elements: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        if self.scale is None:
            return elements
        factors = np.asarray(self.scale.read(), dtype=np.float32).reshape(-1, 1)
        if not np.isfinite(factors).all():
            raise CheckpointError(f"{self.file}: expected finite scales of 8-bit floats, got {factors.max()}")
        return np.asarray(elements, dtype=np.float32).reshape(len(factors), -1) * factors

    def _elements(self) -> npt.NDArray[np.generic]:
        raw = self.data[self.start : self.stop]
        if self.dtype == "BF16":
            widened = raw.view("<u2").astype("<u4") << np.uint32(16)
            forget(self.data)
            return widened.view("<f4")
        if self.dtype in FLOAT8_DTYPES:
            widened_to_half = widen(raw, self.dtype)
            forget(self.data)
            return widened_to_half
        if self.dtype not in _FLOATS:
            readable = ", ".join(READABLE_DTYPES)
            raise CheckpointError(f"{self.file}: expected tensors of dtype {readable}, got {self.dtype}")
        return raw.view(_FLOATS[self.dtype])

    def number(self) -> float | None:
        """The one number of a tensor of any dtype that has numbers, or None."""
        kind = _FLOATS.get(self.dtype) or _INTEGERS.get(self.dtype)
        if math.prod(self.shape) != 1 or (kind is None and self.dtype not in READABLE_DTYPES):
            return None
        elements = self._elements() if kind is None else self.data[self.start : self.stop].view(kind)
        return float(elements.reshape(-1)[0])

    def identity(self, hash_bytes: HashBytes) -> str:
        """What is in the file, and the place, see :class:`LazyTensor`."""
        scale = f"*({self.scale.identity(hash_bytes)})" if self.scale else ""
        content = hash_bytes(self.file, self.start, self.stop)
        return f"{content}:{self.start}:{self.stop}:{self.dtype}{'T' * self.transposed}{scale}"

    def reshaped(self, shape: tuple[int, ...]) -> TensorEntry:
        """The same elements in another shape."""
        return replace(self, shape=shape)

    def turned(self) -> TensorEntry:
        """The matrix with rows and columns exchanged."""
        return replace(self, shape=self.shape[::-1], transposed=not self.transposed)

    def part(self, index: int, count: int) -> TensorEntry:
        """Part ``index`` of ``count`` equal ones along the first axis; the axis must be divisible."""
        size = self.bytes // count
        start = self.start + index * size
        scale = self.scale
        if scale is not None and math.prod(scale.shape) != 1:
            scale = scale.part(index, count)
        shape = (self.shape[0] // count, *self.shape[1:])
        return replace(self, shape=shape, start=start, stop=start + size, scale=scale)


def forget(array: npt.NDArray[np.generic]) -> None:
    """Let the system drop the pages of a mapped file that were read, so that they do not add up.

    They stay in the file; whoever reads them again gets them again. An array in memory stays as it is.
    """
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if isinstance(base, mmap.mmap) and sys.platform == "linux":
        base.madvise(mmap.MADV_DONTNEED)
