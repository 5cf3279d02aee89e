"""Tensors made from less: repeated, padded, filled, counted. Source: ``defs/iOS15/tensor_operation.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list
from sd_mil.ir.limits import check_computed

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@translate("tile")
def tile(call: Call) -> Output:
    """``x`` repeated ``reps`` times per dimension.

    OpenVINO trusts computed sizes, and crashes on negative ones: those are left to numpy, which bounds them.
    """
    x = call.output("x")
    reps = call.counts("reps", length=len(x.get_partial_shape()))
    if not reps:  # OpenVINO 2026.4.1 gives whatever is in memory
        raise call.unsupported("no dimension")
    if (
        x.get_partial_shape().is_dynamic and sum(count > 1 for count in reps) > 1
    ):  # 2026.4.1 mixes up the order
        raise call.unsupported("more than one repetition of sizes that are not known before running")
    return ov.tile(x, int_list(reps)).output(0)


@translate("pad")
def pad(call: Call) -> Output:
    """``x`` with [begin, end] rows added to each of its last dimensions, as many as ``pad`` has pairs."""
    x = call.output("x")
    mode = _PAD_MODES[call.choice("mode", "constant", among=tuple(_PAD_MODES))]
    rank, pads = len(x.get_partial_shape()), call.counts("pad")
    if len(pads) % 2 or len(pads) > 2 * rank:
        raise call.unsupported(f"{len(pads)} paddings of {rank} dimensions")
    untouched = [0] * (rank - len(pads) // 2)
    begins, ends = int_list([*untouched, *pads[0::2]]), int_list([*untouched, *pads[1::2]])
    if mode != "constant":
        return ov.pad(x, begins, ends, mode).output(0)
    value = ov.convert_like(np.float32(call.number("constant_val", 0.0)), x)
    return ov.pad(x, begins, ends, mode, value).output(0)


@translate("fill")
def fill(call: Call) -> Output:
    """A tensor of ``shape`` full of ``value``; computed shapes are left to numpy, which bounds them."""
    sizes = call.counts("shape")
    value = call.output("value") if "value" in call else ov.constant(np.float32(0)).output(0)
    return _spread(value, int_list(sizes), to_scalar=not sizes)


@translate("fill_like")
def fill_like(call: Call) -> Output:
    """A tensor of the shape of ``ref_tensor`` full of ``value``."""
    value = call.output("value") if "value" in call else ov.constant(np.float32(0)).output(0)
    like = call.output("ref_tensor")
    return _spread(value, ov.shape_of(like, "i32").output(0), to_scalar=not len(like.get_partial_shape()))


def _spread(value: Output, shape: Output, *, to_scalar: bool) -> Output:
    """``value`` in a shape; in that of a scalar, to which OpenVINO's broadcast ends the process, as it is."""
    return ov.reshape(value, shape, False).output(0) if to_scalar else ov.broadcast(value, shape).output(0)


@translate("range_1d")
def range_1d(call: Call) -> Output:
    """``start, start + step, …`` below ``end``; computed ones are left to numpy, which bounds them."""
    first, last, stride = (call.number(name) for name in ("start", "end", "step"))
    if not (last - first) / stride > 0:
        raise call.unsupported(f"{first}, {first + stride}, … below {last}")
    check_computed((last - first) / stride)
    start, end, step = (call.output(name) for name in ("start", "end", "step"))
    return ov.range(start, end, step, start.get_element_type().to_string()).output(0)


@translate("one_hot")
def one_hot(call: Call) -> Output:
    """``indices`` as vectors along ``axis``: ``on_value`` at the index, ``off_value`` elsewhere."""
    indices = call.output("indices")
    # one that is computed is left to numpy, which bounds it
    size = np.int32(call.count("one_hot_vector_size", least=1))
    axis = call.axis("axis", -1, rank=len(indices.get_partial_shape()) + 1)
    on = call.output("on_value") if "on_value" in call else ov.constant(np.int32(1)).output(0)
    off = call.output("off_value") if "off_value" in call else ov.constant(np.int32(0)).output(0)
    return ov.one_hot(indices, size, on, off, axis).output(0)


@translate("band_part")
def band_part(call: Call) -> Output:
    """``x``, zero where more than ``lower`` below or ``upper`` above the diagonal; -1 keeps all."""
    x = call.output("x")
    lower, upper = call.integer("lower", -1), call.integer("upper", -1)
    rank = len(x.get_partial_shape())
    rows, columns = _positions(x, rank - 2), _positions(x, rank - 1)
    below = ov.subtract(ov.unsqueeze(rows, int_list([1])), ov.unsqueeze(columns, int_list([0]))).output(0)
    zeros = ov.convert_like(0, x)
    if lower >= 0:
        x = ov.select(ov.less_equal(below, np.int32(lower)), x, zeros).output(0)
    if upper >= 0:
        x = ov.select(ov.less_equal(np.int32(-upper), below), x, zeros).output(0)
    return x


def _positions(x: Output, axis: int) -> Output:
    """0, 1, … along an axis, whose size may not be known before running."""
    size = x.get_partial_shape()[axis]
    if size.is_static:
        return ov.constant(np.arange(size.get_length(), dtype=np.int32)).output(0)
    found = ov.gather(ov.shape_of(x, "i32"), np.int32(axis), np.int32(0))
    return ov.range(np.int32(0), found, np.int32(1), "i32").output(0)
