"""Changes of dtype, and choices between values. Source: coremltools ``defs/iOS15/elementwise_unary.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output, Type

from sd_mil.portable.call import Call
from sd_mil.portable.dtypes import computed_dtype
from sd_mil.portable.registry import translate


@translate("cast")
def cast(call: Call) -> Output:
    """``x`` as ``dtype``: floats to integers truncate, numbers to bool are ``x != 0``; floats stay fp32."""
    x = call.output("x")
    target = computed_dtype(call.text("dtype"), where=f"cast {call.operation.name!r}")
    if x.get_element_type().to_dtype() == target:
        return x
    if target == np.bool_:
        return ov.not_equal(x, ov.convert_like(0, x)).output(0)
    return ov.convert(x, target).output(0)


@translate("select")
def select(call: Call) -> Output:
    """``a`` where ``cond``, else ``b``."""
    condition = call.output("cond")
    if condition.get_element_type() != Type.boolean:
        condition = ov.not_equal(condition, ov.convert_like(0, condition)).output(0)
    return ov.select(condition, call.output("a"), call.output("b")).output(0)
