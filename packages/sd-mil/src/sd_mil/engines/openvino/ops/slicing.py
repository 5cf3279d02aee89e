"""Parts of a tensor. Source: coremltools ``defs/iOS15/tensor_transformation.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output
from openvino.opset15 import slice_scatter

from sd_mil.engines.openvino.bounds import positions_inside
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list


@translate("slice_by_index")
def slice_by_index(call: Call) -> Output:
    """``x[begin:end:stride]`` per dimension, as numpy slices.

    A set bit of ``begin_mask`` or ``end_mask`` ignores the bound; of ``squeeze_mask``, takes the one index
    ``begin`` and drops the dimension. ``begin`` and ``end`` may be computed.
    """
    x = call.output("x")
    none = [0] * len(x.get_partial_shape())
    return ov.strided_slice(
        x,
        call.output("begin"),
        call.output("end"),
        int_list(call.ints("stride", [1] * len(none))),
        begin_mask=call.ints("begin_mask", none),
        end_mask=call.ints("end_mask", none),
        shrink_axis_mask=call.ints("squeeze_mask", none),
    ).output(0)


@translate("slice_by_size")
def slice_by_size(call: Call) -> Output:
    """``size`` elements from ``begin`` per dimension; a size of -1 takes the rest."""
    x, begin = call.output("x"), call.output("begin")
    sizes = call.ints("size")
    stop = ov.add(begin, int_list(sizes))
    to_the_end = [int(size == -1) for size in sizes]
    ones, zeros = int_list([1] * len(sizes)), [0] * len(sizes)
    return ov.strided_slice(x, begin, stop, ones, begin_mask=zeros, end_mask=to_the_end).output(0)


@translate("slice_update")
def slice_update(call: Call) -> Output:
    """``x`` in which the slice ``begin:end:stride``, as in ``slice_by_index``, is ``update``."""
    x, update = call.output("x"), call.output("update")
    none = [0] * len(x.get_partial_shape())
    stride = call.ints("stride", [1] * len(none))
    if min(stride, default=1) < 0:
        raise call.unsupported(f"stride={stride}; expected positive ones")
    open_begin, open_end, squeezed = (
        call.ints(name, none) for name in ("begin_mask", "end_mask", "squeeze_mask")
    )
    begin, last = call.output("begin"), int_list([np.iinfo(np.int32).max])
    one_after = ov.select(ov.equal(begin, int_list([-1])), last, ov.add(begin, int_list([1])))
    end = ov.select(np.array(squeezed, np.bool_), one_after, call.output("end"))
    end = ov.select(np.array(open_end, np.bool_), last, end)
    start = ov.select(np.array(open_begin, np.bool_), int_list([0]), begin)
    if any(squeezed):
        update = ov.unsqueeze(update, int_list([axis for axis, one in enumerate(squeezed) if one])).output(0)
    if call.is_constant("begin") and call.is_constant("end"):
        return slice_scatter(x, update, start, end, int_list(stride)).output(0)
    return _put(call, x, update, start.output(0), stride)


def _put(call: Call, x: Output, update: Output, start: Output, stride: list[int]) -> Output:
    """OpenVINO 2026.4.1's SliceScatter writes nothing sensible where the bounds are computed, or crashes."""
    if update.get_partial_shape().is_dynamic:
        raise call.unsupported("an update of unknown shape at computed bounds")
    places = np.moveaxis(np.indices(tuple(update.get_shape())), 0, -1) * np.array(stride)
    sizes = ov.shape_of(x, "i32")
    first = ov.select(ov.less(start, int_list([0])), ov.add(start, sizes), start)
    indices = positions_inside(call, ov.add(ov.constant(places.astype(np.int32)), first).output(0), x)
    return ov.scatter_nd_update(x, indices, update).output(0)


@translate("split")
def split(call: Call) -> list[Output]:
    """``x`` in ``num_splits`` equal parts, or in parts of ``split_sizes``, along ``axis``."""
    x, axis = call.output("x"), call.integer("axis")
    if "split_sizes" in call:
        return list(ov.variadic_split(x, axis, int_list(call.ints("split_sizes"))).outputs())
    return list(ov.split(x, axis, call.integer("num_splits")).outputs())


@translate("reverse")
def reverse(call: Call) -> Output:
    """``x`` back to front along ``axes``, all of them by default."""
    x = call.output("x")
    rank = len(x.get_partial_shape())
    axes = {axis % rank for axis in call.ints("axes", list(range(rank)))}
    step = int_list([-1 if axis in axes else 1 for axis in range(rank)])
    everything = [1] * rank
    zeros = int_list([0] * rank)
    return ov.strided_slice(x, zeros, zeros, step, begin_mask=everything, end_mask=everything).output(0)
