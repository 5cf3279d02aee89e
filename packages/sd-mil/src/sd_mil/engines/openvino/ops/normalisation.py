"""Normalisations. Source: coremltools ``defs/iOS15/normalization.py``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list

Float32 = npt.NDArray[np.float32]


@translate("layer_norm")
def layer_norm(call: Call) -> Output:
    """``(x - mean) / sqrt(variance + epsilon) · gamma + beta``, each of the four over ``axes``."""
    x = call.output("x")
    rank = len(x.get_partial_shape())
    axes = sorted(call.axes("axes", list(range(rank)), rank=rank))
    if not axes:  # OpenVINO 2026.4.1 gives x, or whatever is in memory
        raise call.unsupported("no axes")
    others = [axis for axis in range(rank) if axis not in axes]
    return _scale_and_shift(call, _standardise(call, x, axes), others, is_spread=False)


@translate("instance_norm")
def instance_norm(call: Call) -> Output:
    """``x`` [N, C, *D] standardised over its spatial dimensions, then ``· gamma + beta`` per channel."""
    x = call.output("x")
    rank = len(x.get_partial_shape())
    if rank < 3:
        raise call.unsupported(f"a tensor of rank {rank}, which has nothing to normalise over")
    normalised = _standardise(call, x, list(range(2, rank)))
    return _scale_and_shift(call, normalised, [0, *range(2, rank)], is_spread=True)


@translate("batch_norm")
def batch_norm(call: Call) -> Output:
    """``(x - mean) / sqrt(variance + epsilon) · gamma + beta`` per channel of [N, C, *D], all four constant.

    Folded to one product and one sum, as Core ML's group normalisations end in one with mean 0.
    """
    mean, variance = _float32(call, "mean"), _float32(call, "variance")
    gamma = _float32(call, "gamma") if "gamma" in call else np.ones_like(mean)
    beta = _float32(call, "beta") if "beta" in call else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + np.float32(call.number("epsilon", 1e-5)))
    x = call.output("x")
    if len(x.get_partial_shape()) < 2:
        raise call.unsupported("no dimension of channels")
    channels = (1, -1) + (1,) * (len(x.get_partial_shape()) - 2)
    scaled = ov.multiply(x, scale.reshape(channels))
    return ov.add(scaled, (beta - mean * scale).reshape(channels)).output(0)


@translate("l2_norm")
def l2_norm(call: Call) -> Output:
    """``x / sqrt(Σ x² + epsilon)`` over the last three dimensions."""
    x = call.output("x")
    squares = ov.reduce_sum(ov.multiply(x, x), int_list([-3, -2, -1]), True)
    return ov.divide(x, ov.sqrt(ov.add(squares, np.float32(call.number("epsilon", 1e-6))))).output(0)


@translate("local_response_norm")
def local_response_norm(call: Call) -> Output:
    """``x / (k + alpha / size · Σ x²) ^ beta``, over ``size`` channels, as many on each side."""
    x, size = call.output("x"), call.count("size", least=1)
    if size % 2 == 0 or size > 2 * call.shape(x)[1]:
        raise call.unsupported(f"size={size}; expected an odd one, and not more than the channels twice")
    alpha, beta, k = call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("k", 1.0)
    return ov.lrn(x, int_list([1]), alpha, beta, k, size).output(0)


def _standardise(call: Call, x: Output, axes: list[int]) -> Output:
    epsilon = call.number("epsilon", 1e-5)
    return ov.mvn(x, int_list(axes), True, epsilon, "inside_sqrt").output(0)


def _scale_and_shift(call: Call, x: Output, others: list[int], *, is_spread: bool) -> Output:
    """``x · gamma + beta``, each optional and without the dimensions ``others`` of ``x``.

    ``is_spread``: one number may stand for all.
    """
    if "gamma" in call:
        x = ov.multiply(x, _along(call, "gamma", x, others, is_spread=is_spread)).output(0)
    if "beta" in call:
        x = ov.add(x, _along(call, "beta", x, others, is_spread=is_spread)).output(0)
    return x


def _along(call: Call, name: str, x: Output, others: list[int], *, is_spread: bool) -> Output:
    """The parameter with the dimensions of ``x``, of size 1 where ``others`` are."""
    parameter, sizes = call.output(name), list(x.get_partial_shape())
    wanted = [size for axis, size in enumerate(sizes) if axis not in others]
    given = list(parameter.get_partial_shape())
    if len(given) != len(wanted) or any(a.is_static and a != b for a, b in zip(wanted, given, strict=True)):
        raise call.unsupported(f"{name} of shape {given} for {sizes}")
    if not is_spread and any(size.is_dynamic for size in wanted):  # held to them when they are known
        kept = int_list([axis for axis in range(len(sizes)) if axis not in others])
        ones = ov.broadcast(np.float32(1), ov.gather(ov.shape_of(x, "i32"), kept, 0))
        parameter = ov.multiply(parameter, ones, "none").output(0)
    return ov.unsqueeze(parameter, int_list(others)).output(0) if others else parameter


def _float32(call: Call, parameter: str) -> Float32:
    return call.array(parameter).astype(np.float32)
