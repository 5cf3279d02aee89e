"""Reductions over axes. Source: coremltools ``defs/iOS15/reduction.py``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino.opset14 as ov
from openvino import Node, Output

from sd_mil.portable.call import Call
from sd_mil.portable.registry import translate
from sd_mil.portable.scope import int_list

_REDUCTIONS: dict[str, Callable[[Output, Output, bool], Node]] = {
    "reduce_l1_norm": ov.reduce_l1,
    "reduce_l2_norm": ov.reduce_l2,
    "reduce_max": ov.reduce_max,
    "reduce_mean": ov.reduce_mean,
    "reduce_min": ov.reduce_min,
    "reduce_prod": ov.reduce_prod,
    "reduce_sum": ov.reduce_sum,
}


@translate(*_REDUCTIONS)
def reduce(call: Call) -> Output:
    """A reduction that OpenVINO has under another name; over all axes unless ``axes`` says which."""
    return _REDUCTIONS[call.operation.type](call.output("x"), _axes(call), call.flag("keep_dims")).output(0)


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
    """``log Σ e^x``, the maximum taken out first so that nothing overflows."""
    x, axes, keep = call.output("x"), _axes(call), call.flag("keep_dims")
    centred = ov.subtract(x, ov.reduce_max(x, axes, True))
    total = ov.log(ov.reduce_sum(ov.exp(centred), axes, keep))
    return ov.add(total, ov.reduce_max(x, axes, keep)).output(0)


@translate("reduce_argmax")
def reduce_argmax(call: Call) -> Output:
    """The first index of the largest value along ``axis``, int32."""
    return _first_index_of(call, ov.reduce_max)


@translate("reduce_argmin")
def reduce_argmin(call: Call) -> Output:
    """The first index of the smallest value along ``axis``, int32."""
    return _first_index_of(call, ov.reduce_min)


def _first_index_of(call: Call, extreme: Callable[[Output, Output, bool], Node]) -> Output:
    """The smallest index whose value is the extreme: OpenVINO's TopK promises no order among equal values.

    The dimension must be known; indices are compared as int32.
    """
    x = call.output("x")
    rank = len(x.get_partial_shape())
    axis = call.integer("axis", -1) % rank
    size = x.get_partial_shape()[axis].get_length()
    shape = [size if position == axis else 1 for position in range(rank)]
    indices = np.arange(size, dtype=np.int32).reshape(shape)
    found = ov.equal(x, extreme(x, int_list([axis]), True))
    candidates = ov.select(found, indices, np.int32(size))
    return ov.reduce_min(candidates, int_list([axis]), call.flag("keep_dims")).output(0)


def _axes(call: Call) -> Output:
    rank = len(call.output("x").get_partial_shape())
    return int_list(call.ints("axes", list(range(rank))))
