"""Lists of tensors. Every write makes a new list."""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.registry import Array, op
from sd_mil.engines.reference.values import MAXIMUM_GROWTH, ListValue
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.limits import check_computed


@op("make_list", variadic="elem_shape", choices={"dtype": NUMPY_DTYPES})
def make_list(
    elem_shape: tuple[Array | str, ...] = (),
    init_length: Array | int = 1,
    dynamic_length: Array | bool = True,
    dtype: str = "fp32",
) -> ListValue:
    """A list in which nothing is written; text in the elements' shape stands for an unknown size."""
    length = int(init_length)
    if not 0 <= length <= MAXIMUM_GROWTH:
        raise ValueError(f"expected a list of 0 to {MAXIMUM_GROWTH} elements, got {length}")
    shape = tuple(None if isinstance(size, str) else int(size) for size in elem_shape)
    computed = np.dtype(np.float32) if dtype == "fp16" else NUMPY_DTYPES[dtype]
    return ListValue((None,) * length, shape, computed, bool(dynamic_length))


@op("list_length")
def list_length(ls: ListValue) -> Array:
    """The number of elements, written or not."""
    return np.array(len(ls.items), np.int32)


@op("list_read")
def list_read(ls: ListValue, index: Array) -> Array:
    """One element."""
    return ls.read(int(index))


@op("list_write")
def list_write(ls: ListValue, index: Array, value: Array) -> ListValue:
    """The list with another element; beyond the end, one of dynamic length grows."""
    return ls.written(int(index), value)


@op("list_gather")
def list_gather(ls: ListValue, indices: Array) -> Array:
    """The elements at the indices, stacked."""
    found = [ls.read(int(index)) for index in indices]
    check_computed(sum(one.size for one in found))
    return np.stack(found)


@op("list_scatter")
def list_scatter(ls: ListValue, indices: Array, value: Array) -> ListValue:
    """The list with the rows of ``value`` at the indices."""
    for index, row in zip(indices, value, strict=True):
        ls = ls.written(int(index), row)
    return ls
