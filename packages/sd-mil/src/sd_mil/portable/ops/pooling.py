"""Windows reduced to one value. Source: coremltools ``defs/iOS15/pool.py``."""

from __future__ import annotations

import openvino.opset14 as ov
from openvino import Output

from sd_mil.portable.call import Call
from sd_mil.portable.registry import translate

_AUTO_PAD = {"valid": "valid", "custom": "explicit", "same": "same_upper", "same_lower": "same_lower"}


@translate("max_pool")
def max_pool(call: Call) -> Output:
    """The largest value of each window of ``x`` [N, C, *D]."""
    strides, begins, ends, kernel, pad = _windows(call)
    dilations = [1] * len(kernel)
    pooled = ov.max_pool(call.output("x"), strides, dilations, begins, ends, kernel, auto_pad=pad)
    return pooled.output(0)


@translate("avg_pool")
def avg_pool(call: Call) -> Output:
    """The mean of each window of ``x``, over all its elements or over those that are not padding."""
    strides, begins, ends, kernel, pad = _windows(call)
    exclude = call.flag("exclude_padding_from_average")
    return ov.avg_pool(call.output("x"), strides, begins, ends, kernel, exclude, auto_pad=pad).output(0)


def _windows(call: Call) -> tuple[list[int], list[int], list[int], list[int], str]:
    """Strides, pads at begin and end, kernel and the kind of padding."""
    if call.flag("ceil_mode"):
        raise call.unsupported("ceil_mode=true; expected false")
    kernel = call.ints("kernel_sizes")
    pad_type = call.choice("pad_type", "valid", among=tuple(_AUTO_PAD))
    pads = call.ints("pad", [0, 0] * len(kernel)) if pad_type == "custom" else [0, 0] * len(kernel)
    return call.ints("strides", [1] * len(kernel)), pads[0::2], pads[1::2], kernel, _AUTO_PAD[pad_type]
