"""Activation functions."""

from __future__ import annotations

import math

import numpy as np

from sd_mil.engines.reference.ops.elementwise import erf
from sd_mil.engines.reference.registry import Array, op
from sd_mil.ir.limits import check_broadcast


@op("relu")
def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.asarray(np.maximum(x, 0))


@op("relu6")
def relu6(x: Array) -> Array:
    """x limited to [0, 6]."""
    return np.clip(x, 0, 6)


@op("clamped_relu")
def clamped_relu(x: Array, alpha: Array, beta: Array) -> Array:
    """min(x, beta) where x >= 0, min(alpha x, beta) elsewhere."""
    check_broadcast(x.shape, alpha.shape, beta.shape)
    return np.asarray(np.minimum(np.where(x >= 0, x, alpha * x), beta))


@op("leaky_relu")
def leaky_relu(x: Array, alpha: Array | float = 0.01) -> Array:
    """X where x >= 0, alpha x elsewhere."""
    return np.where(x >= 0, x, np.float32(alpha) * x)


@op("prelu")
def prelu(x: Array, alpha: Array) -> Array:
    """Leaky, with one slope per channel (axis 1)."""
    slopes = alpha.reshape(-1, *[1] * (x.ndim - 2))
    check_broadcast(x.shape, slopes.shape)
    return np.where(x >= 0, x, slopes * x)


@op("thresholded_relu")
def thresholded_relu(x: Array, alpha: Array | float = 1.0) -> Array:
    """X where x >= alpha, 0 elsewhere."""
    return np.where(x >= alpha, x, np.float32(0))


@op("elu")
def elu(x: Array, alpha: Array | float = 1.0) -> Array:
    """X where x > 0, alpha (e^x - 1) elsewhere."""
    return np.where(x > 0, x, np.float32(alpha) * np.expm1(np.minimum(x, 0)))


@op("linear_activation")
def linear_activation(x: Array, alpha: Array, beta: Array | float = 0.0) -> Array:
    """Alpha x + beta."""
    check_broadcast(x.shape, alpha.shape)
    return np.asarray(alpha * x + np.float32(beta))


@op("scaled_tanh")
def scaled_tanh(x: Array, alpha: Array | float = 1.0, beta: Array | float = 1.0) -> Array:
    """Alpha tanh(beta x)."""
    return np.asarray(np.float32(alpha) * np.tanh(np.float32(beta) * x))


@op("sigmoid")
def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), through tanh so that it cannot overflow."""
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)


@op("sigmoid_hard")
def sigmoid_hard(x: Array, alpha: Array | float = 0.2, beta: Array | float = 0.5) -> Array:
    """Alpha x + beta, limited to [0, 1]."""
    return np.clip(np.float32(alpha) * x + np.float32(beta), 0, 1)


@op("silu")
def silu(x: Array) -> Array:
    """X sigmoid(x)."""
    return np.asarray(x * sigmoid(x))


@op("softplus")
def softplus(x: Array) -> Array:
    """log(1 + e^x)."""
    return np.asarray(np.logaddexp(x, np.float32(0)))


@op("softplus_parametric")
def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    """Alpha log(1 + e^(beta x)), per channel (axis 1)."""
    channelwise = (-1, *[1] * (x.ndim - 2))
    check_broadcast(x.shape, alpha.reshape(channelwise).shape, beta.reshape(channelwise).shape)
    return np.asarray(alpha.reshape(channelwise) * softplus(beta.reshape(channelwise) * x))


@op("softsign")
def softsign(x: Array) -> Array:
    """X / (1 + |x|)."""
    return np.asarray(x / (1 + np.abs(x)))


@op("gelu", choices={"mode": ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")})
def gelu(x: Array, mode: str = "EXACT") -> Array:
    """The Gaussian error linear unit, exact or approximated.

    Source: arXiv:1606.08415, section 2.
    """
    if mode == "EXACT":
        return np.asarray(0.5 * x * (1 + erf(x * np.float32(math.sqrt(0.5)))))
    if mode == "TANH_APPROXIMATION":
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)))
    return np.asarray(x * sigmoid(np.float32(1.702) * x))


@op("softmax")
def softmax(x: Array, axis: Array | int = -1) -> Array:
    """e^x normalised along the axis; the maximum is subtracted first."""
    powers = np.exp(x - x.max(axis=int(axis), keepdims=True))
    powers /= powers.sum(axis=int(axis), keepdims=True)
    return np.asarray(powers)
