"""Operations that move elements without changing them. Most cost nothing: they only change the view."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from sd_convert.errors import LoweringError
from sd_convert.lowering.builder import Builder
from sd_convert.lowering.registry import lowers
from sd_convert.lowering.values import Tensor, Weight, from_bc1s, stored
from sd_convert.lowering.views import View

from .arithmetic import plain

#: Where ATen's axes of (B, S, C) are in (B, C, 1, S).
_AXIS_IN_BC1S = (0, 3, 1)


@lowers("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default")
def reshape(b: Builder, x: Tensor, shape: Sequence[int]) -> Tensor:
    """The same elements in the same order; one size may be -1."""
    return b.reshaped(x, _resolve(x.shape, shape))


def _resolve(old: tuple[int, ...], new: Sequence[int]) -> tuple[int, ...]:
    known = total = 1
    for size in new:
        known *= size if size != -1 else 1
    for size in old:
        total *= size
    return tuple(total // known if size == -1 else size for size in new)


@lowers("aten.permute.default")
def permute(_b: Builder, x: Tensor, order: Sequence[int]) -> Tensor:
    """The axes in another order."""
    return Tensor(x.var, x.view.permute([axis % len(x.shape) for axis in order]))


@lowers("aten.transpose.int")
def transpose(b: Builder, x: Tensor, first: int, second: int) -> Tensor:
    """Two axes swapped."""
    order = list(range(len(x.shape)))
    order[first], order[second] = order[second], order[first]
    return permute(b, x, order)


@lowers("aten.unsqueeze.default")
def unsqueeze(_b: Builder, x: Tensor, axis: int) -> Tensor:
    """A new axis of size one."""
    axis %= len(x.shape) + 1
    return Tensor(x.var, View(x.view.atoms, (*x.view.dims[:axis], (), *x.view.dims[axis:])))


@lowers("aten.squeeze.dim")
def squeeze(_b: Builder, x: Tensor, axis: int) -> Tensor:
    """An axis less, if its size is one."""
    axis %= len(x.shape)
    if x.shape[axis] != 1:
        return x
    return Tensor(x.var, View(x.view.atoms, (*x.view.dims[:axis], *x.view.dims[axis + 1 :])))


@lowers("aten.flatten.using_ints")
def flatten(b: Builder, x: Tensor, start: int = 0, end: int = -1) -> Tensor:
    """Axes ``start`` to ``end`` as one."""
    start, end = start % len(x.shape), end % len(x.shape)
    return reshape(b, x, (*x.shape[:start], -1, *x.shape[end + 1 :]))


@lowers("aten.expand.default")
def expand(b: Builder, x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Axes of size one repeated."""
    old = (1,) * (len(sizes) - len(x.shape)) + x.shape
    new = tuple(before if size == -1 else size for before, size in zip(old, sizes, strict=True))
    padded = b.reshaped(x, old)
    if new == old:
        return padded
    repeats = [after // before for before, after in zip(old, new, strict=True)]
    return stored(b.emit("tile", x=b.plain(padded), reps=repeats))


@lowers("aten.expand_as.default")
def expand_as(b: Builder, x: Tensor, other: Tensor) -> Tensor:
    """Axes of size one repeated, to the shape of another tensor."""
    return expand(b, x, other.shape)


@lowers("aten.cat.default", "aten.concat.default")
def cat(b: Builder, tensors: Sequence[Tensor | Weight | torch.Tensor], axis: int = 0) -> Tensor:
    """Tensors one after another along an axis."""
    known = [tensor for tensor in tensors if isinstance(tensor, Tensor) and tensor.is_bc1s]
    if len(known) == len(tensors):
        values = [b.bc1s(tensor) for tensor in known]
        return from_bc1s(b.emit("concat", values=values, axis=_AXIS_IN_BC1S[axis]))
    return stored(b.emit("concat", values=[plain(b, tensor) for tensor in tensors], axis=axis))


@lowers("aten.chunk.default")
def chunk(b: Builder, x: Tensor, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """An axis cut into ``chunks`` parts, the last one smaller if need be."""
    return split(b, x, -(-x.shape[axis] // chunks), axis)


@lowers("aten.split.Tensor")
def split(b: Builder, x: Tensor, size: int, axis: int = 0) -> tuple[Tensor, ...]:
    """An axis cut into parts of ``size``, the last one smaller if need be."""
    length = x.shape[axis]
    sizes = [min(size, length - start) for start in range(0, length, size)]
    if len(sizes) == 1:
        return (x,)
    if x.is_bc1s:
        parts = b.emit("split", x=b.bc1s(x), split_sizes=sizes, axis=_AXIS_IN_BC1S[axis])
        return tuple(from_bc1s(part) for part in parts)
    return tuple(stored(part) for part in b.emit("split", x=b.plain(x), split_sizes=sizes, axis=axis))


@lowers("getitem")
def getitem(_b: Builder, values: Sequence[Any], index: int) -> Any:
    """One of several outputs."""
    return values[index]


@lowers("aten.select.int")
def select(b: Builder, x: Tensor, axis: int, index: int) -> Tensor:
    """One element of an axis, without the axis."""
    start = index % x.shape[axis]
    return squeeze(b, slice_(b, x, axis, start, start + 1), axis)


@lowers("aten.slice.Tensor")
def slice_(
    b: Builder, x: Tensor, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """Elements ``start`` to ``end`` of an axis."""
    length = x.shape[axis]
    first, last, _ = slice(start, None if end in (None, sys.maxsize) else end).indices(length)
    if step != 1:
        raise LoweringError(f"{b.scope}: aten.slice.Tensor: expected step 1, got {step}")
    if (first, last) == (0, length):
        return x
    begin, stop = [0] * len(x.shape), list(x.shape)
    begin[axis], stop[axis] = first, last
    return stored(b.emit("slice_by_index", x=b.plain(x), begin=begin, end=stop))
