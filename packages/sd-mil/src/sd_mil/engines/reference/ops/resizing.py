"""Interpolation over the last two axes."""

from __future__ import annotations

import math

import numpy as np

from sd_mil.engines.reference.registry import Array, check_counts, op
from sd_mil.ir.limits import check_computed

SAMPLING_MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")

#: Of its float and its integer, while they are computed: as many as ``x`` has elements, of nothing too.
_BYTES_OF_A_PLACE = 32


@op("upsample_nearest_neighbor")
def upsample_nearest_neighbor(
    x: Array, scale_factor_height: Array | float = 1, scale_factor_width: Array | float = 1
) -> Array:
    """Output element i copies input element floor(i in / out): the sizes count, not the scales."""
    height = math.floor(x.shape[-2] * float(scale_factor_height))
    width = math.floor(x.shape[-1] * float(scale_factor_width))
    return _nearest(_nearest(x, height, -2, offset=0), width, -1, offset=0)


@op("resize_nearest_neighbor")
def resize_nearest_neighbor(x: Array, target_size_height: Array, target_size_width: Array) -> Array:
    """Output element i copies input element floor((i + 1/2) in / out), the one under its centre.

    Source: coremltools makes it of TensorFlow's ``ResizeNearestNeighbor(half_pixel_centers=True)``.
    """
    tall = _nearest(x, int(target_size_height), -2, offset=0.5)
    return _nearest(tall, int(target_size_width), -1, offset=0.5)


def _nearest(x: Array, size: int, axis: int, *, offset: float) -> Array:
    check_counts("sizes", size, least=1)
    check_computed(max(_BYTES_OF_A_PLACE // 4, x.size // max(1, x.shape[axis])), size)
    sources = np.floor((np.arange(size) + offset) * (x.shape[axis] / size)).astype(np.int64)
    return np.asarray(np.take(x, np.minimum(sources, x.shape[axis] - 1), axis=axis))


@op("upsample_bilinear")
def upsample_bilinear(
    x: Array,
    scale_factor_height: Array | float = 1,
    scale_factor_width: Array | float = 1,
    align_corners: Array | bool = True,
    half_pixel_centers: Array | bool | None = None,
) -> Array:
    """By scale factors; without aligned corners, pixel centres are half a pixel in unless told otherwise."""
    if align_corners:
        mode = "STRICT_ALIGN_CORNERS"
    else:
        mode = "DEFAULT" if half_pixel_centers is not None and not half_pixel_centers else "UNALIGN_CORNERS"
    height = math.floor(x.shape[-2] * float(scale_factor_height))
    width = math.floor(x.shape[-1] * float(scale_factor_width))
    return _bilinear(x, height, width, mode)


@op("resize_bilinear", choices={"sampling_mode": SAMPLING_MODES})
def resize_bilinear(
    x: Array,
    target_size_height: Array | int = 1,
    target_size_width: Array | int = 1,
    sampling_mode: str = "DEFAULT",
) -> Array:
    """To a target size; the mode says where the sampling points lie."""
    return _bilinear(x, int(target_size_height), int(target_size_width), sampling_mode)


@op(
    "resize",
    choices={"interpolation_mode": ("LINEAR", "NEAREST_NEIGHBOR"), "sampling_mode": SAMPLING_MODES},
)
def resize(
    x: Array,
    shape: Array,
    resized_dims: Array,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Array:
    """The last ``resized_dims`` axes to the last sizes of ``shape``; 0 keeps a size."""
    count = int(resized_dims)
    check_counts("resized_dims", count)
    check_counts("sizes", *shape)
    for axis, size in zip(range(-count, 0), shape[len(shape) - count :].tolist(), strict=True):
        target = size or x.shape[axis]
        check_computed(max(_BYTES_OF_A_PLACE // 4, x.size // max(1, x.shape[axis])), target)
        if interpolation_mode == "LINEAR":
            x = _interpolate(x, _grid(x.shape[axis], target, sampling_mode), axis)
        elif sampling_mode == "DEFAULT":
            x = _nearest(x, target, axis, offset=0.5)
        else:
            sources = np.floor(_grid(x.shape[axis], target, sampling_mode) + 0.5).astype(np.int64)
            x = np.take(x, sources, axis)
    return x


def _bilinear(x: Array, height: int, width: int, mode: str) -> Array:
    check_counts("sizes", height, width, least=1)
    check_computed(
        *(max(1, size) for size in x.shape[:-2]), max(height, x.shape[-2]), max(width, x.shape[-1])
    )
    tall = _interpolate(x, _grid(x.shape[-2], height, mode), -2)
    return _interpolate(tall, _grid(x.shape[-1], width, mode), -1)


def _interpolate(x: Array, points: Array, axis: int) -> Array:
    low = np.floor(points).astype(np.int64)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    weight = (points - low).astype(np.float32)
    weight = weight.reshape(-1, *[1] * (-1 - axis))
    return np.asarray(np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight)


def _grid(size: int, count: int, mode: str) -> Array:
    """Where output elements sample the input axis, in input elements.

    Source: the notes of ``resize_bilinear`` in coremltools.
    """
    i = np.arange(count)
    if mode == "ALIGN_CORNERS" and count == 1:
        points = np.array([(size - 1) / 2])
    elif mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = i * ((size - 1) / max(1, count - 1))
    elif mode == "DEFAULT":
        points = i * (size / count)
    elif mode == "OFFSET_CORNERS":
        points = (i + 0.5) * (max(1, size - 1) / count)
    else:
        points = (i + 0.5) * (size / count) - 0.5
    return np.clip(points, 0, size - 1)
