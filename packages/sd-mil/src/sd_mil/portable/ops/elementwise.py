"""Element-wise operations: one input, or two with numpy's broadcasting.

Source: coremltools ``defs/iOS15/elementwise_unary.py`` and ``elementwise_binary.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino.opset14 as ov
from openvino import Node, Output

from sd_mil.portable.call import Call
from sd_mil.portable.registry import translate

_UNARY: dict[str, Callable[[Output], Node]] = {
    "abs": ov.abs,
    "acos": ov.acos,
    "asin": ov.asin,
    "atan": ov.atan,
    "atanh": ov.atanh,
    "ceil": ov.ceil,
    "cos": ov.cos,
    "cosh": ov.cosh,
    "erf": ov.erf,
    "exp": ov.exp,
    "floor": ov.floor,
    "logical_not": ov.logical_not,
    "sign": ov.sign,
    "sin": ov.sin,
    "sinh": ov.sinh,
    "sqrt": ov.sqrt,
    "tan": ov.tan,
    "tanh": ov.tanh,
}
_BINARY: dict[str, Callable[[Output, Output], Node]] = {
    "add": ov.add,
    "equal": ov.equal,
    "greater": ov.greater,
    "greater_equal": ov.greater_equal,
    "less": ov.less,
    "less_equal": ov.less_equal,
    "logical_and": ov.logical_and,
    "logical_or": ov.logical_or,
    "logical_xor": ov.logical_xor,
    "maximum": ov.maximum,
    "minimum": ov.minimum,
    "mod": ov.floor_mod,  # the divisor's sign, as in Python
    "mul": ov.multiply,
    "not_equal": ov.not_equal,
    "pow": ov.power,
    "sub": ov.subtract,
}


@translate(*_UNARY)
def unary(call: Call) -> Output:
    """``f(x)``, where OpenVINO's operation is MIL's."""
    return _UNARY[call.operation.type](call.output("x")).output(0)


@translate(*_BINARY)
def binary(call: Call) -> Output:
    """``f(x, y)``, where OpenVINO's operation is MIL's."""
    return _BINARY[call.operation.type](call.output("x"), call.output("y")).output(0)


def is_integral(output: Output) -> bool:
    """Whether the values are integers."""
    return bool(output.get_element_type().is_integral_number())


@translate("identity")
def identity(call: Call) -> Output:
    """``x``."""
    return call.output("x")


@translate("real_div")
def real_div(call: Call) -> Output:
    """``x / y``; integers are divided as floats and truncated, because the result is declared an integer."""
    x, y = call.output("x"), call.output("y")
    if not is_integral(x):
        return ov.divide(x, y).output(0)
    quotient = ov.divide(ov.convert(x, np.float32), ov.convert(y, np.float32))
    return ov.convert(quotient, np.int32).output(0)


@translate("floor_div")
def floor_div(call: Call) -> Output:
    """``floor(x / y)``; of integers ``(x - x mod y) / y``, which is exact below 2²⁴."""
    x, y = call.output("x"), call.output("y")
    if not is_integral(x):
        return ov.floor(ov.divide(x, y)).output(0)
    return ov.divide(ov.subtract(x, ov.floor_mod(x, y)), y).output(0)


@translate("square")
def square(call: Call) -> Output:
    """``x²``, as a power: the form in which OpenVINO finds the variance of a normalisation."""
    x = call.output("x")
    return ov.multiply(x, x).output(0) if is_integral(x) else ov.power(x, np.float32(2)).output(0)


@translate("exp2")
def exp2(call: Call) -> Output:
    """``2^x``."""
    return ov.power(np.float32(2), call.output("x")).output(0)


@translate("round")
def round_half_even(call: Call) -> Output:
    """The nearest integer, halves to even."""
    return ov.round(call.output("x"), "half_to_even").output(0)


@translate("inverse")
def inverse(call: Call) -> Output:
    """``1 / (x + epsilon)``."""
    return ov.divide(
        np.float32(1), ov.add(call.output("x"), np.float32(call.number("epsilon", 1e-4)))
    ).output(0)


@translate("log")
def log(call: Call) -> Output:
    """``log(x + epsilon)``."""
    return ov.log(ov.add(call.output("x"), np.float32(call.number("epsilon", 1e-45)))).output(0)


@translate("rsqrt")
def rsqrt(call: Call) -> Output:
    """``1 / sqrt(x + epsilon)``."""
    return ov.divide(
        np.float32(1), ov.sqrt(ov.add(call.output("x"), np.float32(call.number("epsilon", 1e-12))))
    ).output(0)


@translate("threshold")
def threshold(call: Call) -> Output:
    """``max(x, alpha)``."""
    return ov.maximum(call.output("x"), call.output("alpha")).output(0)


@translate("clip")
def clip(call: Call) -> Output:
    """``min(max(x, alpha), beta)``."""
    return ov.clamp(call.output("x"), call.number("alpha"), call.number("beta")).output(0)
