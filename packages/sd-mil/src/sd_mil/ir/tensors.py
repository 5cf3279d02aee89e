"""Constants that are read when somebody needs their elements, and not before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

#: Elements that are handed out at a time: enough to be fast, little beside a model.
PIECE = 2**22


@runtime_checkable
class Tensor(Protocol):
    """A constant's elements, somewhere else: in a checkpoint, in another constant, still to be computed.

    A program may hold any number of them without holding a weight in memory; who writes or executes it reads
    one after another.
    """

    @property
    def dtype(self) -> str:
        """MIL's name of the elements' type."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        ...

    @property
    def source(self) -> str:
        """Where the elements come from and what is done to them, for messages and for caches."""
        ...

    def read(self) -> npt.NDArray[np.generic]:
        """All elements, as :data:`~sd_mil.ir.program.Payload` has them."""
        ...

    def pieces(self) -> Iterator[npt.NDArray[np.generic]]:
        """The same from front to back, flat, in pieces that are small beside a model."""
        ...


def elements(value: npt.NDArray[np.generic] | Tensor) -> int:
    """How many there are."""
    return math.prod(value.shape)


def pieces(value: npt.NDArray[np.generic] | Tensor) -> Iterator[npt.NDArray[np.generic]]:
    """The elements from front to back, flat."""
    if isinstance(value, np.ndarray | np.generic):
        flat = np.ascontiguousarray(value).reshape(-1)
        for start in range(0, flat.size, PIECE):
            yield flat[start : start + PIECE]
    else:
        yield from value.pieces()
