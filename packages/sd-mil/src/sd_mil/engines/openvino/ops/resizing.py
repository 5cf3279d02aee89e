"""Resampling of the last dimensions. Source: coremltools ``image_resizing.py``, iOS 15 and 17."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.bounds import spans_inside
from sd_mil.engines.openvino.call import Call
from sd_mil.engines.openvino.registry import translate
from sd_mil.engines.openvino.scope import int_list
from sd_mil.ir.limits import check_computed

_MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")
#: Above it, sizes are numpy's, which bounds them.
_LARGEST_SCALE = 1 << 20
#: MIL's sampling modes that are OpenVINO's coordinate transformations.
_COORDINATES = {
    "STRICT_ALIGN_CORNERS": "align_corners",
    "DEFAULT": "asymmetric",
    "UNALIGN_CORNERS": "half_pixel",
}


@translate("upsample_nearest_neighbor")
def upsample_nearest_neighbor(call: Call) -> Output:
    """``out[i] = x[floor(i · size / target)]``, ``floor(size · scale)`` of them; scales may be fractions."""
    return _nearest(call.output("x"), _scaled_sizes(call), 2, "asymmetric")


@translate("resize_nearest_neighbor")
def resize_nearest_neighbor(call: Call) -> Output:
    """``out[i] = x[floor((i + ½) · size / target)]``."""
    return _nearest(call.output("x"), int_list(_target_sizes(call)), 2, "tf_half_pixel_for_nn")


@translate("upsample_bilinear")
def upsample_bilinear(call: Call) -> Output:
    """Bilinear, to ``floor(size · scale)``; the grid follows from the sizes, not from the scales."""
    coordinates = "half_pixel" if call.flag("half_pixel_centers", True) else "asymmetric"
    if call.flag("align_corners", True):
        coordinates = "align_corners"
    return _linear(call.output("x"), _scaled_sizes(call), coordinates)


@translate("resize_bilinear")
def resize_bilinear(call: Call) -> Output:
    """Bilinear, to a size, on the grid that ``sampling_mode`` names."""
    mode = call.choice("sampling_mode", "DEFAULT", among=_MODES)
    return _resized(call.output("x"), _target_sizes(call), mode)


@translate("resize")
def resize(call: Call) -> Output:
    """The last ``resized_dims`` dimensions to the last sizes of ``shape``, where 0 keeps one."""
    x, count, wanted = call.output("x"), call.count("resized_dims", least=1), call.counts("shape")
    kept = call.shape(x)[-count:]
    if count > min(len(wanted), len(x.get_partial_shape())):
        raise call.unsupported(f"resized_dims={count}; expected at most the dimensions")
    sizes = [size or int(old) for size, old in zip(wanted[len(wanted) - count :], kept, strict=True)]
    check_computed(*sizes)
    mode = call.choice("sampling_mode", "DEFAULT", among=_MODES)
    interpolation = call.choice("interpolation_mode", "LINEAR", among=("LINEAR", "NEAREST_NEIGHBOR"))
    if interpolation == "LINEAR":
        return _resized(x, sizes, mode)
    if mode == "DEFAULT":
        return _nearest(x, int_list(sizes), count, "tf_half_pixel_for_nn")
    for axis, size in zip(range(-count, 0), sizes, strict=True):
        points = np.floor(_grid(x.get_partial_shape()[axis].get_length(), size, mode) + 0.5)
        x = ov.gather(x, int_list(points.astype(np.int32)), axis).output(0)
    return x


def _resized(x: Output, sizes: list[int], mode: str) -> Output:
    """Linear in each of the last dimensions, on one of OpenVINO's grids or on one that is worked out here."""
    check_computed(*sizes)
    if mode == "ALIGN_CORNERS" and 1 not in sizes:
        mode = "STRICT_ALIGN_CORNERS"
    if mode in _COORDINATES and len(sizes) == 2:
        return _linear(x, int_list(sizes), _COORDINATES[mode])
    for axis, size in zip(range(-len(sizes), 0), sizes, strict=True):
        x = _between(x, _grid(x.get_partial_shape()[axis].get_length(), size, mode), axis)
    return x


def _between(x: Output, points: npt.NDArray[np.float64], axis: int) -> Output:
    low = np.floor(points)
    high = np.minimum(low + 1, x.get_partial_shape()[axis].get_length() - 1)
    weight = (points - low).astype(np.float32).reshape(-1, *[1] * (-1 - axis))
    before, after = (ov.gather(x, int_list(one.astype(np.int32)), axis) for one in (low, high))
    return ov.add(ov.multiply(before, 1 - weight), ov.multiply(after, weight)).output(0)


def _grid(size: int, count: int, mode: str) -> npt.NDArray[np.float64]:
    """Where output elements sample the input. Source: the notes of ``resize_bilinear`` in coremltools."""
    i = np.arange(count)
    points = {
        "STRICT_ALIGN_CORNERS": i * ((size - 1) / max(1, count - 1)),
        "ALIGN_CORNERS": i * ((size - 1) / (count - 1)) if count > 1 else np.array([(size - 1) / 2]),
        "DEFAULT": i * (size / count),
        "OFFSET_CORNERS": (i + 0.5) * (max(1, size - 1) / count),
        "UNALIGN_CORNERS": (i + 0.5) * (size / count) - 0.5,
    }
    return np.clip(points[mode], 0, size - 1)


def _nearest(x: Output, sizes: Output, count: int, coordinates: str) -> Output:
    return ov.interpolate(
        x,
        sizes,
        "nearest",
        "sizes",
        coordinate_transformation_mode=coordinates,
        nearest_mode="floor",
        axes=_last(x, count),
    ).output(0)


def _linear(x: Output, sizes: Output, coordinates: str) -> Output:
    """Of the last two dimensions. What folds constants (2026.4.1) wants two before them; so has a picture."""
    shape = x.get_partial_shape()
    is_picture = shape.is_dynamic or len(shape) == 4
    image = x if is_picture else ov.reshape(x, int_list([1, -1, *x.get_shape()[-2:]]), False).output(0)
    resized = ov.interpolate(
        image, sizes, "linear_onnx", "sizes", coordinate_transformation_mode=coordinates, axes=_last(image, 2)
    ).output(0)
    if is_picture:
        return resized
    return ov.reshape(resized, ov.concat([int_list(list(x.get_shape())[:-2]), sizes], 0), False).output(0)


def _scaled_sizes(call: Call) -> Output:
    """``floor(size · scale)`` of the last two dimensions, computed when they are not known before running."""
    x = call.output("x")
    scales = [call.number("scale_factor_height", 1.0), call.number("scale_factor_width", 1.0)]
    rank = len(x.get_partial_shape())
    last = [x.get_partial_shape()[rank - 2], x.get_partial_shape()[rank - 1]]
    if not all(0 < scale <= _LARGEST_SCALE for scale in scales):
        raise call.unsupported(f"scales {scales}")
    if all(size.is_static for size in last):
        sizes = [int(np.floor(size.get_length() * scale)) for size, scale in zip(last, scales, strict=True)]
        return int_list(_positive(call, sizes))
    sizes = ov.convert(ov.gather(ov.shape_of(x, "i32"), _last(x, 2), 0), np.float32)
    scaled = ov.convert(ov.floor(ov.multiply(sizes, np.array(scales, np.float32))), np.int32).output(0)
    spans_inside(call, scaled, np.array([1, 1]), np.array([np.iinfo(np.int32).max] * 2))
    return scaled


def _target_sizes(call: Call) -> list[int]:
    return [call.count(f"target_size_{side}", 1, least=1) for side in ("height", "width")]


def _positive(call: Call, sizes: list[int]) -> list[int]:
    if min(sizes) < 1:
        raise call.unsupported(f"sizes {sizes}")
    return sizes


def _last(x: Output, count: int) -> Output:
    rank = len(x.get_partial_shape())
    return int_list(list(range(rank - count, rank)))
