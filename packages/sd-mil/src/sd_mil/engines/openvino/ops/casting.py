"""Changes of dtype, and choices between values. Source: coremltools ``defs/iOS15/elementwise_unary.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output, Type

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.dtypes import computed_dtype
from sd_mil.engines.openvino.registry import translate

_NARROW = ("int8", "int16", "uint8", "uint16")


@translate("cast")
def cast(call: Call) -> Output:
    """``x`` as ``dtype``: floats to integers truncate, numbers to bool are ``x != 0``; floats stay fp32."""
    x, dtype = call.output("x"), call.text("dtype")
    target = computed_dtype(dtype, where=f"cast {call.operation.name!r}")
    if target == np.bool_ and x.get_element_type() != Type.boolean:
        return ov.not_equal(x, ov.convert_like(0, x)).output(0)
    if x.get_element_type().to_dtype() != target:
        x = ov.convert(x, target).output(0)
    return _wrapped(x, dtype) if dtype in _NARROW else x


def _wrapped(x: Output, dtype: str) -> Output:
    """The low bits, as numpy keeps them: integers of every width are computed as int32."""
    limits = np.iinfo(dtype)
    low = ov.bitwise_and(x, np.int32(2**limits.bits - 1))
    if limits.min == 0:
        return low.output(0)
    half = np.int32(2 ** (limits.bits - 1))
    return ov.subtract(ov.bitwise_xor(low, half), half).output(0)


@translate("select")
def select(call: Call) -> Output:
    """``a`` where ``cond``, else ``b``."""
    condition = call.output("cond")
    if condition.get_element_type() != Type.boolean:
        condition = ov.not_equal(condition, ov.convert_like(0, condition)).output(0)
    return ov.select(condition, call.output("a"), call.output("b")).output(0)
