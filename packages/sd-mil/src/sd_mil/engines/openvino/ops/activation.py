"""Activations. Source: coremltools ``defs/iOS15/activation.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list


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
    return ov.prelu(call.output("x"), _alpha(call, 0.01)).output(0)


@translate("prelu")
def prelu(call: Call) -> Output:
    """As ``leaky_relu``, with one ``alpha`` per channel (axis 1)."""
    return ov.prelu(call.output("x"), call.output("alpha")).output(0)


@translate("clamped_relu")
def clamped_relu(call: Call) -> Output:
    """``min(x, beta)`` where ``x`` is positive, ``min(alpha·x, beta)`` elsewhere."""
    return ov.minimum(ov.prelu(call.output("x"), call.output("alpha")), call.output("beta")).output(0)


@translate("thresholded_relu")
def thresholded_relu(call: Call) -> Output:
    """``x`` where at least ``alpha``, 0 elsewhere."""
    x = call.output("x")
    return ov.select(ov.less_equal(_alpha(call, 1.0), x), x, np.float32(0)).output(0)


@translate("elu")
def elu(call: Call) -> Output:
    """``x`` where positive, ``alpha·(e^x - 1)`` elsewhere."""
    return ov.elu(call.output("x"), call.number("alpha", 1.0)).output(0)


@translate("linear_activation")
def linear_activation(call: Call) -> Output:
    """``alpha·x + beta``."""
    beta = np.float32(call.number("beta", 0.0))
    return ov.add(ov.multiply(call.output("x"), call.output("alpha")), beta).output(0)


@translate("scaled_tanh")
def scaled_tanh(call: Call) -> Output:
    """``alpha·tanh(beta·x)``."""
    beta = np.float32(call.number("beta", 1.0))
    return ov.multiply(_alpha(call, 1.0), ov.tanh(ov.multiply(call.output("x"), beta))).output(0)


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


@translate("softplus_parametric")
def softplus_parametric(call: Call) -> Output:
    """``alpha·log(1 + e^(beta·x))``, with one ``alpha`` and ``beta`` per channel (axis 1)."""
    x = call.output("x")
    channels = int_list([-1] + [1] * (len(x.get_partial_shape()) - 2))
    alpha, beta = (ov.reshape(call.output(name), channels, False) for name in ("alpha", "beta"))
    return ov.multiply(alpha, ov.softplus(ov.multiply(beta, x))).output(0)


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
    x = call.output("x")
    return ov.softmax(x, call.axis("axis", -1, rank=len(x.get_partial_shape()))).output(0)


def _alpha(call: Call, default: float) -> np.float32:
    return np.float32(call.number("alpha", default))
