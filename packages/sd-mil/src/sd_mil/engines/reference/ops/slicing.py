"""Slices."""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.registry import Array, op


@op("slice_by_index")
def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """numpy's slicing. A mask ignores begin or end; a squeezed axis is indexed at begin and dropped."""
    return np.asarray(x[_index(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)])


def _index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None,
    begin_mask: Array | None,
    end_mask: Array | None,
    squeeze_mask: Array | None,
) -> tuple[slice | int, ...]:
    rank = x.ndim
    strides = [1] * rank if stride is None else [int(step) for step in stride]
    open_begin, open_end, squeezed = (
        [False] * rank if mask is None else [bool(flag) for flag in mask]
        for mask in (begin_mask, end_mask, squeeze_mask)
    )
    index: list[slice | int] = []
    for axis in range(rank):
        first = None if open_begin[axis] else int(begin[axis])
        last = None if open_end[axis] else int(end[axis])
        index.append((first or 0) if squeezed[axis] else slice(first, last, strides[axis]))
    return tuple(index)


@op("slice_by_size")
def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """``size`` elements from ``begin`` on along every axis; -1 means up to the end."""
    index = []
    for axis, (first, count) in enumerate(zip(begin.tolist(), size.tolist(), strict=True)):
        start = first + x.shape[axis] if first < 0 else first
        if not (0 <= start <= start + max(count, 0) <= x.shape[axis] and count >= -1):
            raise ValueError(f"expected a part of {x.shape[axis]} elements, got {count} from {first} on")
        index.append(slice(start, None if count == -1 else start + count))
    return x[tuple(index)]


@op("slice_update")
def slice_update(
    x: Array,
    update: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    """A copy of ``x`` in which the slice has the values of ``update``."""
    index, result = _index(x, begin, end, stride, begin_mask, end_mask, squeeze_mask), x.copy()
    if result[index].shape != update.shape:  # numpy would repeat it, or write none of it
        raise ValueError(f"expected an update of shape {result[index].shape}, got {update.shape}")
    result[index] = update
    return result
