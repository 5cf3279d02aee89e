"""What a LoRA does to one weight, as arithmetic on arrays in float32.

Every kind is a function from its parts and the shape of the weight to the difference, before any scale.
Shapes:
``O`` output and ``I`` input channels, ``R`` rank, ``K`` the kernel's sides (none for a matrix).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_convert.checkpoint.tensors import HashBytes, LazyTensor, forget

Array: TypeAlias = npt.NDArray[np.float32]
Parts: TypeAlias = Mapping[str, LazyTensor]


@dataclass(frozen=True, slots=True)
class Change:
    """One LoRA's part in one weight: ``difference`` of ``parts``, times ``factor``, times the user's
    ``scale``.

    ``magnitude`` is DoRA's: the norm that each row (``by_output``) or column of the changed weight gets.
    """

    kind: str
    parts: Parts
    factor: float
    scale: float
    magnitude: LazyTensor | None = None
    by_output: bool = True

    def apply(self, weight: Array) -> Array:
        """``weight`` with the change; may reuse its memory."""
        difference = self._difference(weight.shape)
        if self.magnitude is None:
            weight += np.float32(self.factor * self.scale) * difference
            return weight
        changed = weight + np.float32(self.factor) * difference
        changed *= _read(self.magnitude).reshape(_along(weight, by_output=self.by_output)) / _norm(
            changed, by_output=self.by_output
        )
        return weight + np.float32(self.scale) * (changed - weight)

    def _difference(self, shape: tuple[int, ...]) -> Array:
        arrays = {name: _read(tensor) for name, tensor in self.parts.items()}
        difference: Array = DIFFERENCES[self.kind](arrays)
        return difference.reshape(shape)

    def identity(self, hash_bytes: HashBytes) -> str:
        """See :meth:`sd_convert.checkpoint.tensors.LazyTensor.identity`."""
        parts = [f"{name}={tensor.identity(hash_bytes)}" for name, tensor in sorted(self.parts.items())]
        magnitude = self.magnitude.identity(hash_bytes) if self.magnitude else ""
        return f"{self.kind}({';'.join(parts)})*{self.factor!r}*{self.scale!r}/{magnitude}/{self.by_output}"


@dataclass(frozen=True, slots=True)
class ChangedTensor:
    """A weight with changes, computed in float32 each time that it is read, and never kept."""

    base: LazyTensor
    changes: tuple[Change, ...]
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the weight."""
        return self.base.shape

    @property
    def bytes(self) -> int:
        """Size of the result."""
        return 4 * math.prod(self.shape)

    def read(self) -> npt.NDArray[np.generic]:
        """The changed weight, see :class:`~sd_convert.checkpoint.tensors.LazyTensor`."""
        base = self.base.read()
        weight = np.array(base, dtype=np.float32)
        forget(base)
        for change in self.changes:
            weight = change.apply(weight)
        return weight

    def identity(self, hash_bytes: HashBytes) -> str:
        """Of the weight and of every change, in their order."""
        parts = [self.base.identity(hash_bytes), *(change.identity(hash_bytes) for change in self.changes)]
        return "+".join(parts)


def _read(tensor: LazyTensor) -> Array:
    return np.asarray(tensor.read(), dtype=np.float32)


def _along(weight: Array, *, by_output: bool) -> tuple[int, ...]:
    """The shape of one number for each row, or for each column."""
    rest = (1,) * (weight.ndim - 2)
    return (weight.shape[0], 1, *rest) if by_output else (1, weight.shape[1], *rest)


def _norm(weight: Array, *, by_output: bool) -> Array:
    axes = tuple(axis for axis in range(weight.ndim) if axis != (0 if by_output else 1))
    norm: Array = np.sqrt(np.sum(weight * weight, axis=axes, keepdims=True))
    return np.maximum(norm, np.finfo(np.float32).tiny)


def _low_rank(parts: Mapping[str, Array]) -> Array:
    """(O, R) times (R, I*K), or Tucker's form with a (R, R, K) core between 1x1 convolutions."""
    up, down = _matrix(parts["up"]), _matrix(parts["down"])
    if "mid" not in parts:
        return up @ down
    core: Array = np.einsum("nm...,in,mj->ij...", parts["mid"], up, down, optimize=True)
    return core


def _hadamard(parts: Mapping[str, Array]) -> Array:
    """LoHa: two low-rank products, multiplied element by element. Source: arXiv 2108.06098, section 2.2."""
    return _factor(parts, "1") * _factor(parts, "2")


def _factor(parts: Mapping[str, Array], which: str) -> Array:
    first, second = parts[f"hada_w{which}_a"], parts[f"hada_w{which}_b"]
    if f"hada_t{which}" not in parts:
        return first @ second
    core: Array = np.einsum("ij...,jr,ip->pr...", parts[f"hada_t{which}"], second, first, optimize=True)
    return core


def _kronecker(parts: Mapping[str, Array]) -> Array:
    """LoKr: a Kronecker product of two matrices, each whole or of low rank. Source: arXiv 2309.14859."""
    first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    if "lokr_w2" in parts:
        second = parts["lokr_w2"]
    elif "lokr_t2" in parts:
        core, left, right = parts["lokr_t2"], parts["lokr_w2_a"], parts["lokr_w2_b"]
        second = np.einsum("ij...,ip,jr->pr...", core, left, right, optimize=True)
    else:
        second = parts["lokr_w2_a"] @ _matrix(parts["lokr_w2_b"])
    product: Array = np.kron(first.reshape(first.shape + (1,) * (second.ndim - first.ndim)), second)
    return product


def _difference(parts: Mapping[str, Array]) -> Array:
    return parts["diff"]


def _matrix(array: Array) -> Array:
    return array.reshape(array.shape[0], -1)


DIFFERENCES: Final[Mapping[str, Callable[[Mapping[str, Array]], Array]]] = {
    "low rank": _low_rank,
    "LoHa": _hadamard,
    "LoKr": _kronecker,
    "difference": _difference,
}
