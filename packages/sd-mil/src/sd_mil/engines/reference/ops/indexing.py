"""Operations that look elements up, or find where they are."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from sd_mil.engines.reference.registry import Array, axis_of, check_counts, op
from sd_mil.ir.limits import check_broadcast, check_computed

_UPDATES: dict[str, Callable[..., Any]] = {
    "update": operator.setitem,
    "add": np.add.at,
    "sub": np.subtract.at,
    "mul": np.multiply.at,
    "div": np.true_divide.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


@op("gather", ignored=("validate_indices",))
def gather(
    x: Array,
    indices: Array,
    axis: Array | int = 0,
    batch_dims: Array | int = 0,
) -> Array:
    """Slices along the axis; the first ``batch_dims`` axes of both are walked together."""
    position, batch = axis_of(axis, x.ndim), int(batch_dims)
    if not 0 <= batch <= min(position, indices.ndim):
        raise ValueError(f"expected batch_dims from 0 to the axis, {position}, got {batch}")
    check_computed(indices.size, *x.shape[batch:position], *x.shape[position + 1 :])
    if batch == 0:
        return np.take(x, indices.astype(np.int64), axis=position)
    parts = [gather(one, where, position - 1, batch - 1) for one, where in zip(x, indices, strict=True)]
    return np.stack(parts)


@op("gather_nd", ignored=("validate_indices",))
def gather_nd(
    x: Array,
    indices: Array,
    batch_dims: Array | int = 0,
) -> Array:
    """``x[index]`` for every index, a vector along the last axis of ``indices``."""
    batch = int(batch_dims)
    check_counts("batch_dims", batch)
    check_computed(*indices.shape[:-1], *x.shape[batch + indices.shape[-1] :])
    if batch:
        return np.stack([gather_nd(one, where, batch - 1) for one, where in zip(x, indices, strict=True)])
    return np.asarray(x[tuple(np.moveaxis(indices.astype(np.int64), -1, 0))])


@op("gather_along_axis", ignored=("validate_indices",))
def gather_along_axis(
    x: Array,
    indices: Array,
    axis: Array | int = 0,
) -> Array:
    """One element per index, the other coordinates staying."""
    position = axis_of(axis, x.ndim)
    check_broadcast((*x.shape[:position], 1, *x.shape[position + 1 :]), indices.shape)
    return np.take_along_axis(x, indices.astype(np.int64), axis=int(axis))


@op("scatter", choices={"mode": _UPDATES}, ignored=("validate_indices",))
def scatter(
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array | int = 0,
    mode: str = "add",
) -> Array:
    """The inverse of ``gather``: updates put, or combined, at the indices along the axis."""
    position = axis_of(axis, data.ndim)
    index = (*[slice(None)] * position, indices.astype(np.int64))
    check_computed(indices.size, *data.shape[:position], *data.shape[position + 1 :])
    return _updated(data, index, updates, mode)


@op("scatter_nd", choices={"mode": _UPDATES}, ignored=("validate_indices",))
def scatter_nd(
    data: Array,
    indices: Array,
    updates: Array,
    mode: str = "add",
) -> Array:
    """The inverse of ``gather_nd``."""
    check_computed(*indices.shape[:-1], *data.shape[indices.shape[-1] :])
    return _updated(data, tuple(np.moveaxis(indices.astype(np.int64), -1, 0)), updates, mode)


@op("scatter_along_axis", choices={"mode": _UPDATES}, ignored=("validate_indices",))
def scatter_along_axis(
    data: Array,
    indices: Array,
    updates: Array,
    axis: Array | int = 0,
    mode: str = "add",
) -> Array:
    """The inverse of ``gather_along_axis``."""
    grid = list(np.indices(indices.shape, sparse=True))
    grid[axis_of(axis, data.ndim)] = indices.astype(np.int64)
    return _updated(data, tuple(grid), updates, mode)


def _updated(data: Array, index: tuple[Any, ...], updates: Array, mode: str) -> Array:
    # numpy's ufunc.at leaves its memory when there are more axes of updates than of what they update
    places = np.broadcast_to(np.False_, data.shape)[index].shape
    result = data.copy()
    _UPDATES[mode](result, index, np.broadcast_to(updates, places))
    return result


@op("non_zero")
def non_zero(x: Array) -> Array:
    """The indices of elements other than zero: [count, rank]."""
    return np.argwhere(x)


@op("one_hot")
def one_hot(
    indices: Array,
    one_hot_vector_size: Array,
    axis: Array | int = -1,
    on_value: Array | int = 1,
    off_value: Array | int = 0,
) -> Array:
    """``on_value`` at the index along a new axis, ``off_value`` elsewhere."""
    check_counts("one_hot_vector_size", one_hot_vector_size)
    check_computed(max(1, indices.size), int(one_hot_vector_size))
    hot = np.expand_dims(indices, -1) == np.arange(int(one_hot_vector_size))
    return np.moveaxis(np.where(hot, on_value, off_value), -1, int(axis))


@op("topk", ignored=("sort", "output_indices_dtype"))
def topk(
    x: Array,
    k: Array | int = 1,
    axis: Array | int = -1,
    ascending: Array | bool = False,
    return_indices: Array | bool = True,
) -> tuple[Array, ...]:
    """The k largest (or smallest) values along the axis and where they are; always sorted."""
    check_counts("k", k, least=1)
    if int(k) > x.shape[axis_of(axis, x.ndim)]:
        raise ValueError(f"expected k of at most {x.shape[int(axis)]}, got {int(k)}")
    order = argsort(x, axis, ascending)
    chosen = np.take(order, np.arange(int(k)), axis=int(axis))
    values = np.take_along_axis(x, chosen, axis=int(axis))
    return (values, chosen) if return_indices else (values,)


@op("argsort")
def argsort(x: Array, axis: Array | int = -1, ascending: Array | bool = False) -> Array:
    """The order that sorts the axis; equal elements keep theirs."""
    return np.argsort(x if ascending else -x, axis=int(axis), kind="stable")


@op("fill")
def fill(shape: Array, value: Array | float = 0.0) -> Array:
    """A tensor of one value."""
    check_counts("sizes", *shape)
    check_computed(*(int(size) for size in shape))
    return np.full([int(size) for size in shape], value)


@op("fill_like")
def fill_like(ref_tensor: Array, value: Array | float = 0.0) -> Array:
    """A tensor of one value, in the shape of another."""
    return np.full(ref_tensor.shape, value)


@op("range_1d")
def range_1d(start: Array, end: Array, step: Array) -> Array:
    """From start on by steps, short of end."""
    check_computed(max(0.0, (float(end) - float(start)) / float(step)))
    if (0 if step == 0 else (float(end) - float(start)) / float(step)) <= 0:
        return np.arange(0, dtype=np.asarray(start).dtype)  # numpy's own differences may overflow
    kind = np.asarray(start).dtype
    if kind.kind == "f":
        return np.arange(start, end, step)
    return np.arange(int(start), int(end), int(step), dtype=np.int64).astype(kind)
