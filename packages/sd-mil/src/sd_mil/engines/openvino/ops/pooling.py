"""Windows reduced to one value. Source: coremltools ``defs/iOS15/pool.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.windows import may_be_empty

_AUTO_PAD = {"valid": "valid", "custom": "explicit", "same": "same_upper", "same_lower": "same_lower"}


@translate("max_pool")
def max_pool(call: Call) -> Output:
    """The largest value of each window of ``x`` [N, C, *D]."""
    strides, begins, ends, kernel, rounding, pad = _windows(call)
    x, dilations = call.output("x"), [1] * len(kernel)
    if may_be_empty(x, kernel, begins, ends):  # whose maximum OpenVINO takes for the least number
        raise call.unsupported(f"pad={[*begins, *ends]} of windows of {kernel}")
    return ov.max_pool(x, strides, dilations, begins, ends, kernel, rounding, pad).output(0)


@translate("avg_pool")
def avg_pool(call: Call) -> Output:
    """The mean of each window of ``x``, over all its elements or over those that are not padding."""
    return _mean(call, call.output("x"), exclude=call.flag("exclude_padding_from_average"))


@translate("l2_pool")
def l2_pool(call: Call) -> Output:
    """The root of each window's sum of squares."""
    x = call.output("x")
    if call.flag("ceil_mode"):
        raise call.unsupported("ceil_mode=true, whose last windows are smaller")
    means = _mean(call, ov.multiply(x, x).output(0), exclude=False)
    return ov.sqrt(ov.multiply(means, np.float32(np.prod(call.ints("kernel_sizes"))))).output(0)


def _mean(call: Call, x: Output, *, exclude: bool) -> Output:
    strides, begins, ends, kernel, rounding, pad = _windows(call)
    if rounding != "floor" and not exclude and any((*begins, *ends)):
        raise call.unsupported(
            "ceil_mode=true and padding that counts; OpenVINO counts what lies beyond it, too"
        )
    if exclude and may_be_empty(x, kernel, begins, ends):
        raise call.unsupported(f"pad={[*begins, *ends]} of windows of {kernel}")
    return ov.avg_pool(x, strides, begins, ends, kernel, exclude, rounding, pad).output(0)


def _windows(call: Call) -> tuple[list[int], list[int], list[int], list[int], str, str]:
    """Strides, pads at begin and end, kernel, how sizes are rounded, and the kind of padding."""
    dimensions = len(call.output("x").get_partial_shape()) - 2
    kernel = call.counts("kernel_sizes", length=dimensions, least=1)
    pad_type = call.choice("pad_type", "valid", among=tuple(_AUTO_PAD))
    pads = [0, 0] * dimensions
    if pad_type == "custom":
        pads = call.counts("pad", pads, length=len(pads))
    if pad_type.startswith("same") or not call.flag("ceil_mode"):
        rounding = "floor"
    else:
        rounding, pad_type = "ceil_torch", "custom"
    strides = call.counts("strides", [1] * dimensions, length=dimensions, least=1)
    if rounding != "floor" and any(step > width for step, width in zip(strides, kernel, strict=True)):
        raise call.unsupported("ceil_mode=true and windows apart, of which OpenVINO leaves out the last")
    return strides, pads[0::2], pads[1::2], kernel, rounding, _AUTO_PAD[pad_type]
