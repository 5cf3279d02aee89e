"""Sorting and running sums. Source: coremltools ``defs/iOS15/tensor_operation.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate


@translate("topk")
def topk(call: Call) -> list[Output]:
    """The ``k`` largest (smallest when ``ascending``) values along ``axis`` and their indices, in order."""
    found = _sorted(call, call.integer("k", 1))
    return found[: len(call.operation.outputs)]


@translate("argsort")
def argsort(call: Call) -> Output:
    """The indices that sort ``x`` along ``axis``, descending unless ``ascending``."""
    x = call.output("x")
    axis = call.integer("axis", -1) % len(x.get_partial_shape())
    return _sorted(call, ov.gather(ov.shape_of(x, "i32"), np.int32(axis), np.int32(0)).output(0))[1]


def _sorted(call: Call, count: int | Output) -> list[Output]:
    mode = "min" if call.flag("ascending") else "max"
    axis = call.integer("axis", -1)
    return list(ov.topk(call.output("x"), count, axis, mode, "value", "i32", True).outputs())


@translate("cumsum")
def cumsum(call: Call) -> Output:
    """Running sums along ``axis``; ``exclusive`` of the element itself, from the end when ``reverse``."""
    return ov.cumsum(
        call.output("x"), call.integer("axis", 0), call.flag("exclusive"), call.flag("reverse")
    ).output(0)
