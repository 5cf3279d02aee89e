"""Reductions over axes. Source: coremltools ``defs/iOS15/reduction.py``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino.opset14 as ov
from openvino import Node, Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.ops.elementwise import is_integral
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list

_REDUCTIONS: dict[str, Callable[[Output, Output, bool], Node]] = {
    "reduce_l1_norm": ov.reduce_l1,
    "reduce_l2_norm": ov.reduce_l2,
    "reduce_mean": ov.reduce_mean,
    "reduce_prod": ov.reduce_prod,
    "reduce_sum": ov.reduce_sum,
}


@translate(*_REDUCTIONS)
def reduce(call: Call) -> Output:
    """A reduction that OpenVINO has under another name; over all axes unless ``axes`` says which."""
    return _REDUCTIONS[call.operation.type](call.output("x"), _axes(call), call.flag("keep_dims")).output(0)


@translate("reduce_max", "reduce_min")
def reduce_extreme(call: Call) -> Output:
    """The largest or smallest value."""
    largest = call.operation.type == "reduce_max"
    return _extreme(call.output("x"), _axes(call), call.flag("keep_dims"), largest=largest)


def _extreme(x: Output, axes: Output, keep: bool, *, largest: bool) -> Output:
    """The extreme value; where all are infinite, OpenVINO gives the largest finite number."""
    found = (ov.reduce_max if largest else ov.reduce_min)(x, axes, keep).output(0)
    if is_integral(x):
        return found
    end = np.finfo(np.float32).min if largest else np.finfo(np.float32).max
    return ov.select(ov.equal(found, end), np.float32(-np.inf if largest else np.inf), found).output(0)


@translate("reduce_sum_square")
def reduce_sum_square(call: Call) -> Output:
    """``Σ x²``."""
    x = call.output("x")
    return ov.reduce_sum(ov.multiply(x, x), _axes(call), call.flag("keep_dims")).output(0)


@translate("reduce_log_sum")
def reduce_log_sum(call: Call) -> Output:
    """``log Σ x``."""
    return ov.log(ov.reduce_sum(call.output("x"), _axes(call), call.flag("keep_dims"))).output(0)


@translate("reduce_log_sum_exp")
def reduce_log_sum_exp(call: Call) -> Output:
    """``log Σ e^x``, the maximum, kept finite, taken out first so that nothing overflows."""
    x, axes, keep = call.output("x"), _axes(call), call.flag("keep_dims")
    ends = np.finfo(np.float32)
    total = ov.reduce_sum(
        ov.exp(ov.subtract(x, ov.clamp(ov.reduce_max(x, axes, True), ends.min, ends.max))), axes, keep
    )
    largest = ov.clamp(ov.reduce_max(x, axes, keep), ends.min, ends.max)
    return ov.add(ov.log(total), largest).output(0)


@translate("reduce_argmax")
def reduce_argmax(call: Call) -> Output:
    """The first index of the largest value along ``axis``, int32."""
    return _first_index_of(call, largest=True)


@translate("reduce_argmin")
def reduce_argmin(call: Call) -> Output:
    """The first index of the smallest value along ``axis``, int32."""
    return _first_index_of(call, largest=False)


def _first_index_of(call: Call, *, largest: bool) -> Output:
    """The smallest index whose value is the extreme: OpenVINO's TopK promises no order among equal values.

    Among NaN alone, it is the last index.
    """
    x = call.output("x")
    rank = len(x.get_partial_shape())
    axis = call.axis("axis", -1, rank=rank)
    size = ov.gather(ov.shape_of(x, "i32"), np.int32(axis), np.int32(0))
    along = int_list([-1 if position == axis else 1 for position in range(rank)])
    indices = ov.reshape(ov.range(np.int32(0), size, np.int32(1), "i32"), along, False)
    found = ov.equal(x, _extreme(x, int_list([axis]), True, largest=largest))
    candidates = ov.select(found, indices, ov.subtract(size, np.int32(1)))
    return ov.reduce_min(candidates, int_list([axis]), call.flag("keep_dims")).output(0)


def _axes(call: Call) -> Output:
    """The axes.

    Raises: UnsupportedOpError when there are none, with which OpenVINO 2026.4.1 compiles few reductions.
    """
    rank = len(call.output("x").get_partial_shape())
    axes = call.axes("axes", list(range(rank)), rank=rank)
    if not axes:
        raise call.unsupported("no axes")
    return int_list(axes)
