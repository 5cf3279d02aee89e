"""Resampling of the last two dimensions. Source: coremltools ``defs/iOS15/image_resizing.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.portable.call import Call
from sd_mil.portable.registry import translate
from sd_mil.portable.scope import int_list

#: MIL's sampling modes that are OpenVINO's coordinate transformations.
_SAMPLING = {
    "STRICT_ALIGN_CORNERS": "align_corners",
    "DEFAULT": "asymmetric",
    "UNALIGN_CORNERS": "half_pixel",
}


@translate("upsample_nearest_neighbor")
def upsample_nearest_neighbor(call: Call) -> Output:
    """``out[i] = x[floor(i · size / target)]``, ``floor(size · scale)`` of them; scales may be fractions."""
    x = call.output("x")
    sizes = [int(size) for size in list(x.get_shape())[-2:]]
    return ov.interpolate(
        x,
        int_list([int(np.floor(size * scale)) for size, scale in zip(sizes, _scales(call), strict=True)]),
        "nearest",
        "sizes",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        axes=_last_two(x),
    ).output(0)


@translate("resize_nearest_neighbor")
def resize_nearest_neighbor(call: Call) -> Output:
    """``out[i] = x[floor((i + ½) · size / target)]``."""
    x = call.output("x")
    return ov.interpolate(
        x,
        int_list([call.integer("target_size_height"), call.integer("target_size_width")]),
        "nearest",
        "sizes",
        coordinate_transformation_mode="tf_half_pixel_for_nn",
        nearest_mode="floor",
        axes=_last_two(x),
    ).output(0)


@translate("upsample_bilinear")
def upsample_bilinear(call: Call) -> Output:
    """Bilinear, to ``floor(size · scale)``; the grid follows from the sizes, not from the scales."""
    x = call.output("x")
    sizes = [int(size) for size in list(x.get_shape())[-2:]]
    target = [int(np.floor(size * scale)) for size, scale in zip(sizes, _scales(call), strict=True)]
    corners = "align_corners" if call.flag("align_corners", True) else "half_pixel"
    return _bilinear(x, target, corners)


@translate("resize_bilinear")
def resize_bilinear(call: Call) -> Output:
    """Bilinear, to a size, on the grid that ``sampling_mode`` names."""
    mode = call.choice("sampling_mode", "DEFAULT", among=tuple(_SAMPLING))
    target = [call.integer("target_size_height"), call.integer("target_size_width")]
    return _bilinear(call.output("x"), target, _SAMPLING[mode])


def _bilinear(x: Output, target: list[int], coordinates: str) -> Output:
    return ov.interpolate(
        x,
        int_list(target),
        "linear_onnx",
        "sizes",
        coordinate_transformation_mode=coordinates,
        axes=_last_two(x),
    ).output(0)


def _scales(call: Call) -> list[float]:
    return [call.number("scale_factor_height", 1.0), call.number("scale_factor_width", 1.0)]


def _last_two(x: Output) -> Output:
    rank = len(x.get_partial_shape())
    return int_list([rank - 2, rank - 1])
