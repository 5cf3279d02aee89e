"""Sorting and running sums. Source: coremltools ``defs/iOS15/tensor_operation.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.bounds import count_inside
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate


@translate("topk")
def topk(call: Call) -> list[Output]:
    """The ``k`` largest (smallest when ``ascending``) values along ``axis`` and their indices, in order."""
    x = call.output("x")
    axis, count = call.axis("axis", -1, rank=len(x.get_partial_shape())), call.count("k", 1, least=1)
    size = x.get_partial_shape()[axis]
    if size.is_static and count > size.get_length():
        raise call.unsupported(f"k={count} of {size}")
    found = _sorted(call, count if size.is_static else count_inside(call, count, x, axis))
    return found[: len(call.operation.outputs)]


@translate("argsort")
def argsort(call: Call) -> Output:
    """The indices that sort ``x`` along ``axis``, descending unless ``ascending``."""
    x = call.output("x")
    axis = call.axis("axis", -1, rank=len(x.get_partial_shape()))
    return _sorted(call, ov.gather(ov.shape_of(x, "i32"), np.int32(axis), np.int32(0)).output(0))[1]


def _sorted(call: Call, count: int | Output) -> list[Output]:
    mode, x = "min" if call.flag("ascending") else "max", call.output("x")
    axis = call.axis("axis", -1, rank=len(x.get_partial_shape()))
    return list(ov.topk(x, count, axis, mode, "value", "i32", True).outputs())


@translate("cumsum")
def cumsum(call: Call) -> Output:
    """Running sums along ``axis``; ``exclusive`` of the element itself, from the end when ``reverse``."""
    x = call.output("x")
    axis = call.axis("axis", 0, rank=len(x.get_partial_shape()))
    return ov.cumsum(x, axis, call.flag("exclusive"), call.flag("reverse")).output(0)
