"""Weights as constants of a program: read from the checkpoint, and cast, when their elements are needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sd_mil.ir import NUMPY_DTYPES, PIECE

from .casting import cast
from .component import Tensors
from .errors import WeightsMismatchError
from .tensors import forget

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointTensor:
    """The tensor ``name`` of ``weights`` in the program's arithmetic: a :class:`sd_mil.ir.tensors.Tensor`.

    ``dtype`` is MIL's name; ``shape`` has as many elements as the tensor, in the same order.
    """

    name: str
    weights: Tensors
    dtype: str
    shape: tuple[int, ...]

    @property
    def source(self) -> str:
        """The name in the checkpoint."""
        return self.name

    def read(self) -> npt.NDArray[np.generic]:
        """All elements.

        Raises: as :meth:`pieces`.
        """
        array = cast(self._elements(), self._numpy_dtype, self.name)
        return array.reshape(self.shape)

    def pieces(self) -> Iterator[npt.NDArray[np.generic]]:
        """The elements from front to back; pages of the file that were read are given back to the system.

        Raises:
            LoweringError: a number that the dtype cannot hold.
            WeightsMismatchError: the tensor has another number of elements.
        """
        flat = self._elements()
        for start in range(0, flat.size, PIECE):
            piece = cast(flat[start : start + PIECE], self._numpy_dtype, self.name)
            yield piece
            forget(piece)
        forget(flat)

    def _elements(self) -> npt.NDArray[Any]:
        array, count = self.weights[self.name], math.prod(self.shape)
        if array.size != count:
            raise WeightsMismatchError(f"{self.name}: expected {count} elements, got {array.size}")
        return np.ascontiguousarray(array).reshape(-1)

    @property
    def _numpy_dtype(self) -> np.dtype[np.generic]:
        return NUMPY_DTYPES[self.dtype]
