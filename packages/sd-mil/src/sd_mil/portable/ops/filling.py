"""Tensors made from less: repeated, padded, filled, counted. Source: ``defs/iOS15/tensor_operation.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.portable.call import Call
from sd_mil.portable.registry import translate
from sd_mil.portable.scope import int_list

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@translate("tile")
def tile(call: Call) -> Output:
    """``x`` repeated ``reps`` times per dimension; ``reps`` may be computed."""
    return ov.tile(call.output("x"), call.output("reps")).output(0)


@translate("pad")
def pad(call: Call) -> Output:
    """``x`` with [begin, end] rows added to each of its last dimensions, as many as ``pad`` has pairs."""
    x = call.output("x")
    mode = _PAD_MODES[call.choice("mode", "constant", among=tuple(_PAD_MODES))]
    pads = call.ints("pad")
    untouched = [0] * (len(x.get_partial_shape()) - len(pads) // 2)
    begins, ends = int_list([*untouched, *pads[0::2]]), int_list([*untouched, *pads[1::2]])
    if mode != "constant":
        return ov.pad(x, begins, ends, mode).output(0)
    value = ov.convert_like(np.float32(call.number("constant_val", 0.0)), x)
    return ov.pad(x, begins, ends, mode, value).output(0)


@translate("fill")
def fill(call: Call) -> Output:
    """A tensor of ``shape``, which may be computed, full of ``value``."""
    value = call.output("value") if "value" in call else ov.constant(np.float32(0)).output(0)
    return ov.broadcast(value, call.output("shape")).output(0)


@translate("fill_like")
def fill_like(call: Call) -> Output:
    """A tensor of the shape of ``ref_tensor`` full of ``value``."""
    value = call.output("value") if "value" in call else ov.constant(np.float32(0)).output(0)
    return ov.broadcast(value, ov.shape_of(call.output("ref_tensor"), "i32")).output(0)


@translate("range_1d")
def range_1d(call: Call) -> Output:
    """``start, start + step, …`` below ``end``."""
    start, end, step = (call.output(name) for name in ("start", "end", "step"))
    return ov.range(start, end, step, start.get_element_type().to_string()).output(0)


@translate("one_hot")
def one_hot(call: Call) -> Output:
    """``indices`` as vectors along ``axis``: ``on_value`` at the index, ``off_value`` elsewhere."""
    size = call.output("one_hot_vector_size")
    on = call.output("on_value") if "on_value" in call else ov.constant(np.int32(1)).output(0)
    off = call.output("off_value") if "off_value" in call else ov.constant(np.int32(0)).output(0)
    return ov.one_hot(call.output("indices"), size, on, off, call.integer("axis", -1)).output(0)


@translate("band_part")
def band_part(call: Call) -> Output:
    """``x``, zero where more than ``lower`` below or ``upper`` above the diagonal; -1 keeps all."""
    x = call.output("x")
    rows, columns = (int(size) for size in list(x.get_shape())[-2:])
    lower, upper = call.integer("lower", -1), call.integer("upper", -1)
    below = np.arange(rows)[:, None] - np.arange(columns)[None, :]
    kept = ((lower < 0) | (below <= lower)) & ((upper < 0) | (-below <= upper))
    return ov.select(ov.constant(kept), x, ov.convert_like(0, x)).output(0)
