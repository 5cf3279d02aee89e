"""Element-wise operations: one input, or two with numpy's broadcasting.

Source: coremltools ``defs/iOS15/elementwise_unary.py`` and ``elementwise_binary.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino.opset14 as ov
from openvino import Node, Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate

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
    "less": ov.less,
    "less_equal": ov.less_equal,
    "logical_and": ov.logical_and,
    "logical_or": ov.logical_or,
    "logical_xor": ov.logical_xor,
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


@translate("greater")
def greater(call: Call) -> Output:
    """``x > y``, asked the other way round: OpenVINO's Greater holds for NaN."""
    return ov.less(call.output("y"), call.output("x")).output(0)


@translate("greater_equal")
def greater_equal(call: Call) -> Output:
    """``x ≥ y``, asked the other way round as ``greater`` is."""
    return ov.less_equal(call.output("y"), call.output("x")).output(0)


@translate("maximum", "minimum")
def extreme(call: Call) -> Output:
    """The larger, or smaller, of two values; NaN if either is."""
    x, y = call.output("x"), call.output("y")
    chosen = (ov.maximum if call.operation.type == "maximum" else ov.minimum)(x, y)
    if is_integral(x):
        return chosen.output(0)
    return ov.select(ov.not_equal(x, x), x, ov.select(ov.not_equal(y, y), y, chosen)).output(0)


@translate("exp")
def exp(call: Call) -> Output:
    """``e^x``; OpenVINO's own makes infinity of NaN."""
    x = call.output("x")
    return ov.select(ov.not_equal(x, x), x, ov.exp(x)).output(0)


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
    """``floor(x / y)``."""
    x, y = call.output("x"), call.output("y")
    if not is_integral(x):
        return ov.floor(ov.divide(x, y)).output(0)
    return _divided(x, y)[0]


@translate("mod")
def mod(call: Call) -> Output:
    """``x - y · floor(x / y)``: the divisor's sign, as in Python."""
    x, y = call.output("x"), call.output("y")
    return ov.floor_mod(x, y).output(0) if not is_integral(x) else _divided(x, y)[1]


def _divided(x: Output, y: Output) -> tuple[Output, Output]:
    """Floor and remainder of a division of integers, which OpenVINO does in fp32: three rounds make it exact.

    The first is off by up to 2⁸, the second by one; the last looks at the remainder's sign and size.
    """
    quotient, remainder = _corrected(x, y, ov.convert_like(0, x).output(0), x)
    quotient, remainder = _corrected(x, y, quotient, remainder)
    zero = ov.convert_like(0, x)
    opposite = ov.logical_and(
        ov.not_equal(remainder, zero), ov.logical_xor(ov.less(remainder, zero), ov.less(y, zero))
    )
    too_large = ov.logical_not(ov.less(ov.abs(remainder), ov.abs(y)))
    step = ov.subtract(ov.convert(too_large, np.int32), ov.convert(opposite, np.int32))
    both = ov.multiply(step, ov.convert(ov.logical_xor(opposite, too_large), np.int32)).output(0)
    return ov.add(quotient, both).output(0), ov.subtract(remainder, ov.multiply(both, y)).output(0)


def _corrected(x: Output, y: Output, quotient: Output, remainder: Output) -> tuple[Output, Output]:
    floats = ov.divide(ov.convert(remainder, np.float32), ov.convert(y, np.float32))
    better = ov.add(quotient, ov.convert(ov.floor(floats), np.int32)).output(0)
    return better, ov.subtract(x, ov.multiply(better, y)).output(0)


@translate("square")
def square(call: Call) -> Output:
    """``x²``, as a power: the form in which OpenVINO finds the variance of a normalisation."""
    x = call.output("x")
    return ov.multiply(x, x).output(0) if is_integral(x) else ov.power(x, np.float32(2)).output(0)


@translate("exp2")
def exp2(call: Call) -> Output:
    """``2^x``."""
    x = call.output("x")
    powers = ov.power(np.float32(2), ov.convert(x, np.float32)).output(0)
    return ov.convert(powers, np.int32).output(0) if is_integral(x) else powers


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
