"""Weights as constants of a program: read from the checkpoint, and cast, when their elements are needed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sd_mil.ir import NUMPY_DTYPES, PIECE

from sd_convert.checkpoint.tensors import forget
from sd_convert.components.component import Tensors
from sd_convert.errors import WeightsMismatchError

from .casting import cast
from .computed import Expression, as_text, evaluate

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointTensor:
    """A tensor of ``weights`` in the program's arithmetic, or what is computed of some.

    A :class:`sd_mil.ir.tensors.Tensor`. ``expression``: the tensor's name, or how it is computed. ``dtype``
    is MIL's name; ``shape`` has as many elements as the value, in the same order.
    """

    expression: Expression
    weights: Tensors
    dtype: str
    shape: tuple[int, ...]

    @property
    def source(self) -> str:
        """The name in the checkpoint, or the expression as text."""
        return as_text(self.expression)

    def read(self) -> npt.NDArray[np.generic]:
        """All elements.

        Raises: as :meth:`pieces`.
        """
        array = cast(self._elements(), self._numpy_dtype, self.source)
        return array.reshape(self.shape)

    def pieces(self) -> Iterator[npt.NDArray[np.generic]]:
        """The elements from front to back; pages of the file that were read are given back to the system.

        Raises:
            LoweringError: a number that the dtype cannot hold.
            WeightsMismatchError: the tensor has another number of elements.
        """
        flat = self._elements()
        for start in range(0, flat.size, PIECE):
            piece = cast(flat[start : start + PIECE], self._numpy_dtype, self.source)
            yield piece
            forget(piece)
        forget(flat)

    def _elements(self) -> npt.NDArray[Any]:
        try:
            array, count = evaluate(self.expression, self.weights), math.prod(self.shape)
        except ValueError as error:
            raise WeightsMismatchError(f"{self.source}: {error}") from error
        if array.size != count:
            raise WeightsMismatchError(f"{self.source}: expected {count} elements, got {array.size}")
        return np.ascontiguousarray(array).reshape(-1)

    @property
    def _numpy_dtype(self) -> np.dtype[np.generic]:
        return NUMPY_DTYPES[self.dtype]
