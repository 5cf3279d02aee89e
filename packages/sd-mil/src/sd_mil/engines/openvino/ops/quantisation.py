"""Integers that stand for real numbers. Source: coremltools ``defs/iOS17/quantization_ops.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.constants import constant_node
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list


@translate("quantize")
def quantize(call: Call) -> Output:
    """``round(x / scale) + zero_point``, limited to the integer's range."""
    return ov.convert(_integers(call), np.int32).output(0)


@translate("dequantize")
def dequantize(call: Call) -> Output:
    """``(x - zero_point) · scale``.

    With an ``output_dtype``, which :func:`sd_mil.rewriting.integers.compute_in_integers` adds, of
    ``quantize(x)``.
    """
    if "output_dtype" in call:
        return _through_integers(call)
    shifted = ov.convert(_stored(call, "input"), np.float32).output(0)
    if "zero_point" in call:
        shifted = ov.subtract(shifted, _along(call, "zero_point")).output(0)
    return ov.multiply(shifted, _along(call, "scale")).output(0)


def _integers(call: Call) -> Output:
    """What ``quantize`` gives, as floats."""
    limits = _limits(call)
    integers = ov.round(ov.divide(call.output("input"), _along(call, "scale")), "half_to_even").output(0)
    if "zero_point" in call:
        integers = ov.add(integers, _along(call, "zero_point")).output(0)
    return ov.clamp(integers, float(limits.min), float(limits.max)).output(0)


def _through_integers(call: Call) -> Output:
    """Rounded to what the integers can express, in the form by which OpenVINO knows quantised layers.

    FakeQuantize is given integers: how it rounds what lies between two depends on what it is fused with.
    """
    limits = _limits(call)
    scale, zero = np.float32(call.number("scale")), call.number("zero_point", 0)
    given = np.float32(limits.min), np.float32(limits.max)
    meant = (np.float32((limit - zero) * scale) for limit in given)
    return ov.fake_quantize(_integers(call), *given, *meant, 256).output(0)


def _limits(call: Call) -> np.iinfo[Any]:
    return np.iinfo(call.choice("output_dtype", None, among=("int8", "uint8")))


def _stored(call: Call, parameter: str) -> Output:
    """The parameter; a constant in the 8 bits that it is stored in."""
    if not call.is_constant(parameter):
        return call.output(parameter)
    array = call.array(parameter)
    return constant_node(array).output(0) if array.dtype == np.int8 else call.output(parameter)


def _along(call: Call, parameter: str) -> Output:
    """The parameter as a float; one value per element of ``axis`` is spread over the other dimensions."""
    values = ov.convert(call.output(parameter), np.float32).output(0)
    if "axis" not in call or not len(values.get_partial_shape()):
        return values
    rank = len(_stored(call, "input").get_partial_shape())
    shape = [1] * rank
    shape[call.axis("axis", rank=rank)] = -1
    return ov.reshape(values, int_list(shape), False).output(0)
