"""Parts of a tensor. Source: coremltools ``defs/iOS15/tensor_transformation.py``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openvino.opset14 as ov
from openvino import Output
from openvino.opset15 import slice_scatter

from sd_mil.engines.openvino.bounds import checked, places_inside, positions_inside, spans_inside
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list
from sd_mil.ir.limits import MAX_EMPTY_PARTS

#: A stride as long as that leaves one element.
_FAR = 1 << 30


@translate("slice_by_index")
def slice_by_index(call: Call) -> Output:
    """``x[begin:end:stride]`` per dimension, as numpy slices.

    A set bit of ``begin_mask`` or ``end_mask`` ignores the bound; of ``squeeze_mask``, takes the one index
    ``begin`` and drops the dimension. ``begin`` and ``end`` may be computed.
    """
    x, rank = call.output("x"), len(call.output("x").get_partial_shape())
    masks = _Masks.of(call, rank)
    if x.get_partial_shape().is_static and call.is_constant("begin") and call.is_constant("end"):
        return _sliced(x, _ranges(call, call.shape(x), masks), masks.squeezed)
    if any(step < 0 for step in masks.strides):  # where they end depends on what is not known
        raise call.unsupported(f"stride={masks.strides} at computed bounds")
    bounds = {name: call.output(name) for name in ("begin", "end")}
    if any(_length(call, bound) != rank for bound in bounds.values()):
        raise call.unsupported(f"bounds for other than {rank} dimensions")
    for axis in reversed(range(rank)):
        if masks.squeezed[axis]:
            index = ov.gather(bounds["begin"], np.int32(0 if masks.open_begin[axis] else axis), np.int32(0))
            index = ov.constant(np.int32(0)) if masks.open_begin[axis] else index
            x = ov.gather(x, checked(call, index.output(0), x, axis), axis).output(0)
    kept = [axis for axis in range(rank) if not masks.squeezed[axis]]
    if not kept:
        return x
    begin, end = (ov.gather(bounds[name], int_list(kept), 0) for name in ("begin", "end"))
    return ov.strided_slice(
        x,
        begin,
        end,
        int_list([masks.strides[axis] for axis in kept]),
        begin_mask=[int(masks.open_begin[axis]) for axis in kept],
        end_mask=[int(masks.open_end[axis]) for axis in kept],
    ).output(0)


@dataclass(frozen=True, slots=True)
class _Masks:
    """What of a slice is always constant, one entry per dimension."""

    strides: list[int]
    open_begin: list[bool]
    open_end: list[bool]
    squeezed: list[bool]

    @staticmethod
    def of(call: Call, rank: int) -> _Masks:
        """The parameters, of ``rank`` entries each.

        Raises: UnsupportedOpError when they are of another length, or a stride is 0.
        """
        strides = call.ints("stride", [1] * rank)
        masks = [call.ints(name, [0] * rank) for name in ("begin_mask", "end_mask", "squeeze_mask")]
        if any(len(one) != rank for one in (strides, *masks)) or 0 in strides:
            raise call.unsupported(f"stride={strides} and masks {masks} of {rank} dimensions")
        return _Masks(strides, *([bool(bit) for bit in mask] for mask in masks))


def _ranges(call: Call, sizes: list[int], masks: _Masks) -> list[range]:
    """The positions that constant bounds choose along each dimension: always at least one, in the tensor.

    Raises: UnsupportedOpError when there are none, or an index is out of range.
    """
    begins, ends = call.ints("begin"), call.ints("end")
    if len(begins) != len(sizes) or len(ends) != len(sizes):
        raise call.unsupported(f"bounds {begins} and {ends} of {len(sizes)} dimensions")
    ranges = []
    for axis, size in enumerate(sizes):
        begin = None if masks.open_begin[axis] else begins[axis]
        end = None if masks.open_end[axis] else ends[axis]
        if masks.squeezed[axis]:
            index = begin or 0
            chosen = range(size)[index : index + 1 or None] if -size <= index < size else range(0)
        else:
            chosen = range(size)[begin : end : masks.strides[axis]]
        if not chosen:
            raise call.unsupported(f"begin={begins} and end={ends} of {sizes}")
        ranges.append(chosen)
    return ranges


def _sliced(x: Output, ranges: list[range], squeezed: list[bool]) -> Output:
    """The positions of ``x``; dimensions of which one is taken may be dropped."""
    backwards = [one.step < 0 and one[-1] == 0 for one in ranges]
    return ov.strided_slice(
        x,
        int_list([one[0] for one in ranges]),
        int_list([one[-1] + (1 if one.step > 0 else -1) for one in ranges]),
        int_list([max(-_FAR, min(one.step, _FAR)) for one in ranges]),
        begin_mask=[0] * len(ranges),
        end_mask=[int(open_end) for open_end in backwards],  # -1 would be the last
        shrink_axis_mask=[int(drop) for drop in squeezed],
    ).output(0)


def _length(call: Call, vector: Output) -> int:
    (size,) = call.shape(vector)
    return size


@translate("slice_by_size")
def slice_by_size(call: Call) -> Output:
    """``size`` elements from ``begin`` per dimension; a size of -1 takes the rest.

    Every element has to be there: OpenVINO would give fewer.
    """
    x, begin, sizes = call.output("x"), call.output("begin"), call.counts("size", least=-1)
    if len(sizes) != len(x.get_partial_shape()) or _length(call, begin) != len(sizes):
        raise call.unsupported(f"size={sizes} of {x.get_partial_shape()}")
    least = np.array(sizes, np.int32)
    whole = ov.shape_of(x, "i32").output(0)
    first = places_inside(call, begin, whole, np.maximum(least, 1))
    stop = ov.select(least == -1, whole, ov.add(first, ov.constant(least)))
    axes = int_list(list(range(len(sizes))))
    return ov.slice(x, first, stop, int_list([1] * len(sizes)), axes).output(0)


@translate("slice_update")
def slice_update(call: Call) -> Output:
    """``x`` in which the slice ``begin:end:stride``, as in ``slice_by_index``, is ``update``."""
    x, update = call.output("x"), call.output("update")
    rank = len(x.get_partial_shape())
    masks = _Masks.of(call, rank)
    if min(masks.strides, default=1) < 0:
        raise call.unsupported(f"stride={masks.strides}; expected positive ones")
    if any(masks.squeezed):
        axes = [axis for axis, squeezed in enumerate(masks.squeezed) if squeezed]
        update = ov.unsqueeze(update, int_list(axes)).output(0)
    if not (x.get_partial_shape().is_static and call.is_constant("begin") and call.is_constant("end")):
        return _put(call, x, update, masks)
    ranges = _ranges(call, call.shape(x), masks)
    if call.shape(update) != [len(one) for one in ranges]:
        raise call.unsupported(f"an update of shape {call.shape(update)} for {[len(one) for one in ranges]}")
    start = int_list([one[0] for one in ranges])
    stop = int_list([one[-1] + 1 for one in ranges])
    return slice_scatter(x, update, start, stop, int_list([min(one.step, _FAR) for one in ranges])).output(0)


def _put(call: Call, x: Output, update: Output, masks: _Masks) -> Output:
    """OpenVINO 2026.4.1's SliceScatter writes nothing sensible where the bounds are computed, or crashes."""
    begin, end = call.output("begin"), call.output("end")
    shape, rank = call.shape(update), len(masks.strides)
    if not rank == len(shape) == _length(call, begin) == _length(call, end):
        raise call.unsupported(f"an update of shape {shape} at {rank} bounds")
    sizes, zero = ov.shape_of(x, "i32"), int_list([0])
    start, stop = (
        ov.minimum(ov.maximum(ov.select(ov.less(one, zero), ov.add(one, sizes), one), zero), sizes)
        for one in (begin, end)
    )
    start = ov.select(np.array(masks.open_begin), zero, start)
    stop = ov.select(np.array(masks.open_end), sizes, stop)
    stop = ov.select(np.array(masks.squeezed), ov.add(start, int_list([1])), stop)
    lengths = np.array(shape)
    steps = np.array([min(step, _FAR) for step in masks.strides])
    # as many as there are of the update: start + (length - 1) · stride < stop <= start + length · stride
    spans = ov.subtract(stop, start).output(0)
    spans_inside(call, spans, (lengths - 1) * steps + 1, lengths * steps)
    places = np.moveaxis(np.indices(tuple(shape)), 0, -1) * steps
    indices = positions_inside(call, ov.add(ov.constant(places.astype(np.int32)), start).output(0), x)
    return ov.scatter_nd_update(x, indices, update).output(0)


@translate("split")
def split(call: Call) -> list[Output]:
    """``x`` in ``num_splits`` equal parts, or in parts of ``split_sizes``, along ``axis``."""
    x = call.output("x")
    axis = call.axis("axis", rank=len(x.get_partial_shape()))
    size = x.get_partial_shape()[axis]
    if "split_sizes" in call:
        sizes = call.counts("split_sizes", least=1)
        if size.is_dynamic or sum(sizes) != size.get_length():
            raise call.unsupported(f"split_sizes={sizes} of {size}")
        return list(ov.variadic_split(x, axis, int_list(sizes)).outputs())
    count = call.count("num_splits", least=1)
    if count > max(MAX_EMPTY_PARTS, 0 if size.is_dynamic else size.get_length()):
        raise call.unsupported(f"num_splits={count} of {size}")
    return list(ov.split(x, axis, count).outputs())


@translate("reverse")
def reverse(call: Call) -> Output:
    """``x`` back to front along ``axes``, all of them by default."""
    x = call.output("x")
    rank = len(x.get_partial_shape())
    axes = call.axes("axes", list(range(rank)), rank=rank)
    step = int_list([-1 if axis in axes else 1 for axis in range(rank)])
    everything = [1] * rank
    zeros = int_list([0] * rank)
    return ov.strided_slice(x, zeros, zeros, step, begin_mask=everything, end_mask=everything).output(0)
