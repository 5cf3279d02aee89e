"""Tensors that are computed from others when they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .tensors import HashBytes, LazyTensor


@dataclass(frozen=True, slots=True)
class RowsAppended:
    """A matrix with more rows below it, see :class:`sd_convert.checkpoint.tensors.LazyTensor`."""

    base: LazyTensor
    rows: tuple[LazyTensor, ...]

    @property
    def dtype(self) -> str:
        """float16 if all parts are, else float32."""
        return "F16" if all(part.dtype == "F16" for part in (self.base, *self.rows)) else "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return (self.base.shape[0] + sum(part.shape[0] for part in self.rows), *self.base.shape[1:])

    @property
    def bytes(self) -> int:
        """Size of the whole."""
        return math.prod(self.shape) * (2 if self.dtype == "F16" else 4)

    def read(self) -> npt.NDArray[np.generic]:
        """The parts one below the other, in float32 unless all are float16."""
        dtype = np.float16 if self.dtype == "F16" else np.float32
        return np.concatenate([np.asarray(part.read(), dtype=dtype) for part in (self.base, *self.rows)])

    def identity(self, hash_bytes: HashBytes) -> str:
        """Of all parts, in their order."""
        return "/".join(part.identity(hash_bytes) for part in (self.base, *self.rows))
