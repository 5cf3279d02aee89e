"""Activations. Source: coremltools ``defs/iOS15/activation.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.portable.call import Call
from sd_mil.portable.registry import translate


@translate("relu")
def relu(call: Call) -> Output:
    """``max(x, 0)``."""
    return ov.relu(call.output("x")).output(0)


@translate("relu6")
def relu6(call: Call) -> Output:
    """``min(max(x, 0), 6)``."""
    return ov.clamp(call.output("x"), 0.0, 6.0).output(0)


@translate("leaky_relu")
def leaky_relu(call: Call) -> Output:
    """``x`` where positive, ``alpha·x`` elsewhere."""
    return ov.prelu(call.output("x"), call.output("alpha")).output(0)


@translate("elu")
def elu(call: Call) -> Output:
    """``x`` where positive, ``alpha·(e^x - 1)`` elsewhere."""
    return ov.elu(call.output("x"), call.number("alpha")).output(0)


@translate("sigmoid")
def sigmoid(call: Call) -> Output:
    """``1 / (1 + e^-x)``."""
    return ov.sigmoid(call.output("x")).output(0)


@translate("sigmoid_hard")
def sigmoid_hard(call: Call) -> Output:
    """``min(max(alpha·x + beta, 0), 1)``."""
    return ov.hard_sigmoid(call.output("x"), call.output("alpha"), call.output("beta")).output(0)


@translate("silu")
def silu(call: Call) -> Output:
    """``x · sigmoid(x)``."""
    return ov.swish(call.output("x")).output(0)


@translate("softplus")
def softplus(call: Call) -> Output:
    """``log(1 + e^x)``."""
    return ov.softplus(call.output("x")).output(0)


@translate("softsign")
def softsign(call: Call) -> Output:
    """``x / (1 + |x|)``."""
    return ov.softsign(call.output("x")).output(0)


@translate("gelu")
def gelu(call: Call) -> Output:
    """Gaussian error linear unit: with ``erf`` (EXACT), with ``tanh``, or as ``x · sigmoid(1.702 x)``."""
    modes = ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")
    mode, x = call.choice("mode", "EXACT", among=modes), call.output("x")
    if mode == "SIGMOID_APPROXIMATION":
        return ov.multiply(x, ov.sigmoid(ov.multiply(x, np.float32(1.702)))).output(0)
    return ov.gelu(x, "ERF" if mode == "EXACT" else "TANH").output(0)


@translate("softmax")
def softmax(call: Call) -> Output:
    """``e^x / Σ e^x`` over one axis."""
    return ov.softmax(call.output("x"), call.integer("axis", -1)).output(0)
