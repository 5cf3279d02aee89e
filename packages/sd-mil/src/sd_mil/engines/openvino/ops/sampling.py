"""Images looked up at given points. Source: coremltools ``defs/iOS15/image_resizing.py``."""

from __future__ import annotations

import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.bounds import same_batch, spans_inside
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list

_PADDINGS = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}
_COORDINATES = ("unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one")


@translate("resample")
def resample(call: Call) -> Output:
    """``x`` [N, C, H, W] at ``coordinates`` [N, H', W', 2], x before y -> [N, C, H', W'].

    A padding value other than 0 is left to numpy; so is ``symmetric`` where it is not what OpenVINO means by
    a reflection, at the edges of pixels.
    """
    padding = call.choice("padding_mode", None, among=tuple(_PADDINGS))
    coordinates = call.choice("coordinates_mode", None, among=_COORDINATES)
    whole = coordinates == "unnormalized" or call.flag("align_corners")
    if padding == "constant" and call.number("padding_value"):
        raise call.unsupported("a padding_value; expected 0")
    if padding == "symmetric" and whole:
        raise call.unsupported("padding_mode='symmetric' of coordinates that mean the centres of pixels")
    attributes = {
        "align_corners": whole,
        "mode": call.choice("sampling_mode", None, among=("bilinear", "nearest")),
        "padding_mode": _PADDINGS[padding],
    }
    x, points = call.output("x"), list(call.output("coordinates").get_partial_shape())
    same_batch(call, x, call.output("coordinates"), 1)
    if len(points) != 4 or points[3] != 2:
        raise call.unsupported("points of other than two coordinates")
    return ov.grid_sample(x, _normalised(call, x, coordinates), attributes).output(0)


def _normalised(call: Call, x: Output, mode: str) -> Output:
    """Coordinates from -1 to 1."""
    points = ov.convert(call.output("coordinates"), np.float32).output(0)
    if mode == "normalized_minus_one_to_one":
        return points
    if mode == "normalized_zero_to_one":
        return ov.subtract(ov.multiply(points, np.float32(2)), np.float32(1)).output(0)
    height, width = (int(size) for size in list(x.get_shape())[2:])
    if 1 in (height, width):
        raise call.unsupported("an image of one pixel in height or width")
    scale = np.array([2 / (width - 1), 2 / (height - 1)], np.float32)
    return ov.subtract(ov.multiply(points, scale), np.float32(1)).output(0)


@translate("crop")
def crop(call: Call) -> Output:
    """``x`` without what is cut off before and after in its last two dimensions."""
    x = call.output("x")
    free = len(x.get_partial_shape()) - 2
    (top, bottom), (left, right) = (call.counts(name, length=2) for name in ("crop_height", "crop_width"))
    sizes = ov.gather(ov.shape_of(x, "i32"), int_list([free, free + 1]), 0).output(0)
    least = np.array([top + bottom + 1, left + right + 1])
    if any(
        size.is_static and size.get_length() < one
        for size, one in zip(list(x.get_partial_shape())[free:], least, strict=True)
    ):
        raise call.unsupported("more cut off than there is")
    if x.get_partial_shape().is_dynamic:
        spans_inside(call, sizes, least, np.array([np.iinfo(np.int32).max] * 2))
    ones = [1] * (free + 2)
    return ov.strided_slice(
        x,
        [0] * free + [top, left],
        [0] * free + [-bottom, -right],
        ones,
        begin_mask=[0] * (free + 2),
        end_mask=[1] * free + [int(bottom == 0), int(right == 0)],
    ).output(0)
