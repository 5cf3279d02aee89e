"""Positions that stay inside of their tensors, whatever a file or an input says they are.

OpenVINO trusts the indices of gathers and scatters: one that is out of range reads or writes memory that is
not the tensor's. So no index reaches it that was not brought into range first; and whether that changed any
is an output of the graph of its own, for which ``CompiledProgram.run`` raises what the reference engine
raises.
"""

from __future__ import annotations

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino.opset14 as ov
from openvino import Dimension, Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.scope import int_list

Numbers: TypeAlias = "npt.NDArray[Any]"


def inside(call: Call, indices: Output, x: Output, axis: int) -> Output:
    """``indices`` along ``axis`` of ``x``, from 0 on: negative ones count from the end.

    Raises: UnsupportedOpError when the axis is empty, or its size not known before running.
    """
    return _bounded(call, indices, np.array(_size(call, x.get_partial_shape()[axis]), np.int32))


def positions_inside(call: Call, positions: Output, x: Output, batch_dims: int = 0) -> Output:
    """``positions`` [..., n] in ``x`` after ``batch_dims`` dimensions, from 0 on, as :func:`inside`."""
    width = positions.get_partial_shape()[-1].get_length()
    dimensions = list(x.get_partial_shape())[batch_dims : batch_dims + width]
    if len(dimensions) != width:
        raise call.unsupported(f"positions of {width} numbers in fewer dimensions")
    return _bounded(call, positions, np.array([_size(call, one) for one in dimensions], np.int32))


def lengths_inside(call: Call, lengths: Output, x: Output, axis: int) -> Output:
    """``lengths`` of beginnings of ``axis`` of ``x``, from 0 to its size.

    Raises: UnsupportedOpError when that is not known before running.
    """
    size = np.array(_size(call, x.get_partial_shape()[axis]), np.int32)
    numbers = ov.convert(lengths, "i32").output(0)
    _require(call, numbers, ov.constant(np.int32(0)).output(0), ov.constant(size + 1).output(0))
    return ov.minimum(ov.maximum(numbers, np.int32(0)), ov.constant(size)).output(0)


def count_inside(call: Call, count: int, x: Output, axis: int) -> Output:
    """``count``, or what ``axis`` of ``x`` has if that is less."""
    size = ov.gather(ov.shape_of(x, "i32"), np.int32(axis), np.int32(0)).output(0)
    wanted = np.array(count, np.int32)
    spans_inside(call, size, wanted, np.array(np.iinfo(np.int32).max))
    return ov.minimum(size, ov.constant(wanted)).output(0)


def first_rows(call: Call, x: Output, count: Output, *, exactly: bool) -> Output:
    """The first ``count`` [1] rows of ``x``, which has as many or more; no more if ``exactly``."""
    rows = ov.gather(ov.shape_of(x, "i32"), int_list([0]), 0).output(0)
    least = rows if exactly else int_list([0])
    _require(call, count, least, ov.add(rows, int_list([1])).output(0))
    return ov.slice(x, int_list([0]), count, int_list([1]), int_list([0])).output(0)


def places_inside(call: Call, begins: Output, sizes: Output, counts: Numbers) -> Output:
    """Where ``counts`` elements of ``sizes`` begin, from 0 on: negative places count from the end."""
    numbers = ov.convert(begins, "i32").output(0)
    last = ov.subtract(sizes, ov.constant(counts.astype(np.int32)))
    first = ov.select(ov.less(numbers, np.int32(0)), ov.add(numbers, sizes), numbers).output(0)
    _require(call, first, ov.constant(np.int32(0)).output(0), ov.add(last, np.int32(1)).output(0))
    return ov.maximum(ov.minimum(first, last), np.int32(0)).output(0)


def spans_inside(call: Call, spans: Output, least: Numbers, most: Numbers) -> None:
    """Have it said when ``spans`` are not from ``least`` to ``most``, both included."""
    low, high = (np.minimum(one, np.iinfo(np.int32).max - 1).astype(np.int32) for one in (least, most))
    _require(call, spans, ov.constant(low).output(0), ov.constant(high + 1).output(0))


def checked(call: Call, indices: Output, x: Output, axis: int) -> Output:
    """``indices`` as they are: for Gather, which gives zeros out of range; that they are is still said."""
    sizes = ov.gather(ov.shape_of(x, "i32"), int_list([axis]), 0)
    numbers = ov.convert(indices, "i32")
    _require(call, numbers.output(0), ov.negative(sizes).output(0), sizes.output(0))
    return indices


def least_shape(output: Output) -> tuple[int, ...]:
    """The sizes; of one that is not known before running, what it has at least, and 1 at that."""
    return tuple(max(1, int(size)) for size in output.get_partial_shape().get_min_shape())


def same_batch(call: Call, x: Output, indices: Output, count: int) -> None:
    """Check that ``x`` and ``indices`` share their first ``count`` dimensions; OpenVINO takes it for granted.

    Raises: UnsupportedOpError when they do not, or their sizes are not known before running.
    """
    first, second = (list(one.get_partial_shape())[:count] for one in (x, indices))
    if len(first) < count or any(size.is_dynamic for size in first + second) or first != second:
        raise call.unsupported(f"batch_dims={count} of shapes {first} and {second}")


def _bounded(call: Call, indices: Output, sizes: np.ndarray) -> Output:
    numbers = ov.convert(indices, "i32").output(0)
    _require(call, numbers, ov.constant(-sizes).output(0), ov.constant(sizes).output(0))
    low = ov.maximum(numbers, ov.constant(-sizes))
    kept = ov.minimum(low, ov.constant(sizes - 1))
    return ov.select(ov.less(kept, np.int32(0)), ov.add(kept, ov.constant(sizes)), kept).output(0)


def _require(call: Call, numbers: Output, least: Output, end: Output) -> None:
    outside = ov.logical_or(ov.less(numbers, least), ov.greater_equal(numbers, end))
    call.scope.violations.append(
        (ov.convert(outside, "i32").output(0), f"{call.operation.type} {call.operation.name!r}")
    )


def _size(call: Call, dimension: Dimension) -> int:
    if dimension.is_dynamic:
        raise call.unsupported("indices into a size that is not known before running")
    if dimension.get_length() == 0:
        raise call.unsupported("indices into nothing")
    return int(dimension.get_length())


def violations_of(found: list[tuple[Output, str]]) -> Output:
    """One number for each of the operations: above zero if an index of it was out of range."""
    each = [
        ov.reduce_sum(ov.reshape(output, int_list([-1]), False), int_list([0]), True) for output, _ in found
    ]
    return ov.concat(each, 0).output(0)
