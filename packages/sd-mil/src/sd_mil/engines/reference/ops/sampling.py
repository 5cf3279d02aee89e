"""Images looked up at points between their pixels.

Coordinates are in pixels from here on: 0 is the centre of the first pixel, ``size - 1`` that of the last.
"""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.ops.resizing import SAMPLING_MODES
from sd_mil.engines.reference.registry import Array, check_counts, op
from sd_mil.ir.limits import check_computed

_COORDINATES = ("unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one")
_PADDINGS = ("constant", "border", "reflection", "symmetric")


@op(
    "resample",
    choices={
        "sampling_mode": ("bilinear", "nearest"),
        "padding_mode": _PADDINGS,
        "coordinates_mode": _COORDINATES,
    },
)
def resample(
    x: Array,
    coordinates: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Array,
    coordinates_mode: str,
    align_corners: Array,
) -> Array:
    """The image at points given for every output pixel.

    Shapes: x [N, C, H, W], coordinates [N, H', W', 2] with x before y, result [N, C, H', W'].
    """
    # of one image, its four neighbours are there besides
    check_computed(max(4, len(x)), x.shape[1], *coordinates.shape[1:-1])
    across, down = (
        _pixels(coordinates[..., place].astype(np.float32), size, coordinates_mode, bool(align_corners))
        for place, size in ((0, x.shape[3]), (1, x.shape[2]))
    )
    if padding_mode != "constant":
        whole = coordinates_mode == "unnormalized" or bool(align_corners)
        across = _folded(across, x.shape[3], padding_mode, whole)
        down = _folded(down, x.shape[2], padding_mode, whole)
    look = _bilinear if sampling_mode == "bilinear" else _nearest
    return np.stack(
        [look(image, y, z, padding_value) for image, y, z in zip(x, down, across, strict=True)]
    ).astype(np.float32)


@op(
    "affine",
    choices={
        "sampling_mode": ("bilinear",),
        "padding_mode": ("constant",),
        "coordinates_mode": ("normalized_minus_one_to_one",),
    },
)
def affine(
    x: Array,
    transform_matrix: Array,
    output_height: Array,
    output_width: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Array,
    coordinates_mode: str,
    align_corners: Array,
) -> Array:
    """The image under linear maps from the output's coordinates to the input's.

    Shapes: x [N, C, H, W], transform_matrix [N or 1, 6], result [N, C, H', W'].
    """
    height, width = int(output_height), int(output_width)
    aligned = bool(align_corners)
    check_counts("sizes", height, width, least=1)
    check_computed(len(x), max(4, x.shape[1]), height, width)  # four: x and y of each point in 8 bytes
    down, across = np.meshgrid(_normalised(height, aligned), _normalised(width, aligned), indexing="ij")
    points = np.stack([across, down, np.ones_like(down)], axis=-1)
    maps = np.broadcast_to(transform_matrix, (len(x), 6)).reshape(-1, 2, 3)
    coordinates = np.einsum("hwk,nck->nhwc", points, maps)
    return resample(
        x, coordinates, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners
    )


def _normalised(size: int, align_corners: bool) -> Array:
    if align_corners:
        return np.linspace(-1, 1, size, dtype=np.float32)
    return ((2 * np.arange(size) + 1) / size - 1).astype(np.float32)


def _pixels(points: Array, size: int, mode: str, align_corners: bool) -> Array:
    if mode == "unnormalized":
        return points
    unit = (points + 1) / 2 if mode == "normalized_minus_one_to_one" else points
    return unit * (size - 1) if align_corners else unit * size - np.float32(0.5)


def _folded(points: Array, size: int, mode: str, whole: bool) -> Array:
    """Points brought into the image: to its border, or reflected at pixel centres or at pixel edges.

    ``reflection`` of coordinates that mean pixel edges turns at the edges, as in torch's ``grid_sample``.
    """
    if mode == "border":
        return np.clip(points, 0, size - 1)
    low, high = (0.0, size - 1.0) if mode == "reflection" and whole else (-0.5, size - 0.5)
    span = max(high - low, 1e-9)
    distance = np.abs(points - low) % (2 * span)
    return np.clip(low + np.minimum(distance, 2 * span - distance), 0, size - 1)


def _nearest(image: Array, down: Array, across: Array, fill: Array) -> Array:
    return _pixel(image, np.rint(down), np.rint(across), fill)


def _bilinear(image: Array, down: Array, across: Array, fill: Array) -> Array:
    top, left = np.floor(down), np.floor(across)
    lower, right = (down - top).astype(np.float32), (across - left).astype(np.float32)
    upper_row = _pixel(image, top, left, fill) * (1 - right) + _pixel(image, top, left + 1, fill) * right
    lower_row = _pixel(image, top + 1, left, fill) * (1 - right)
    lower_row = lower_row + _pixel(image, top + 1, left + 1, fill) * right
    return np.asarray(upper_row * (1 - lower) + lower_row * lower)


def _pixel(image: Array, down: Array, across: Array, fill: Array) -> Array:
    """[C, *points]: the pixels at whole coordinates, ``fill`` outside."""
    height, width = image.shape[1:]
    with np.errstate(invalid="ignore"):
        inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
        rows = np.where(inside, down, 0).astype(np.int64)
        columns = np.where(inside, across, 0).astype(np.int64)
    return np.where(inside, image[:, rows, columns], np.float32(fill))


@op("crop")
def crop(x: Array, crop_height: Array, crop_width: Array) -> Array:
    """The last two axes without what is cut off before and after."""
    (top, bottom), (left, right) = crop_height.ravel().tolist(), crop_width.ravel().tolist()
    check_counts("crops", top, bottom, left, right)
    check_counts("sizes", x.shape[-2] - top - bottom, x.shape[-1] - left - right, least=1)
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


#: Of a box: its row and column in floats and integers, and whether they are in the image.
_BYTES_OF_A_POINT = 48
_BOXES = (
    "CORNERS_HEIGHT_FIRST",
    "CORNERS_WIDTH_FIRST",
    "CENTER_SIZE_HEIGHT_FIRST",
    "CENTER_SIZE_WIDTH_FIRST",
)


@op("crop_resize", choices={"box_coordinate_mode": _BOXES, "sampling_mode": SAMPLING_MODES})
def crop_resize(
    x: Array,
    roi: Array | None = None,
    boxes: Array | None = None,
    box_indices: Array | None = None,
    target_height: Array | int = 1,
    target_width: Array | int = 1,
    normalized_coordinates: Array | bool = False,
    spatial_scale: Array | float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: Array | float = 0.0,
) -> Array:
    """Boxes cut out of images, each resized to one size.

    Shapes: x [N, C, H, W]; up to iOS 16 roi [R, 1, 4, 1, 1] for boxes of every image (result
    [R, N, C, H', W']) or [R, 1, 5, 1, 1] with the image's index first (result [R, 1, C, H', W']); from iOS 17
    on boxes [R, 4] and box_indices [R] (result [R, C, H', W']).
    """
    given = boxes if roi is None else roi.reshape(len(roi), -1)
    if given is None:
        raise ValueError("expected roi or boxes, got neither")
    corners = _corners(given[:, -4:].astype(np.float32), box_coordinate_mode) * np.float32(spatial_scale)
    if normalized_coordinates:
        corners = corners * np.array([x.shape[2] - 1, x.shape[3] - 1] * 2, np.float32)
    size = (int(target_height), int(target_width))
    check_counts("sizes", *size, least=1)
    images = len(x) if roi is not None and given.shape[1] == 4 else 1  # of each box
    check_computed(len(given), images, max(_BYTES_OF_A_POINT // 4, x.shape[1]), *size)
    fill = np.asarray(pad_value, np.float32)
    if roi is not None and given.shape[1] == 4:
        cut = [[_cut(image, one, size, sampling_mode, fill) for image in x] for one in corners]
        return np.array(cut, np.float32)
    indices = np.arange(len(given)) if box_indices is None else box_indices
    indices = given[:, 0] if roi is not None else indices
    pairs = zip(indices, corners, strict=True)
    result = np.stack([_cut(x[int(index)], one, size, sampling_mode, fill) for index, one in pairs])
    return result if roi is None else result[:, None]


def _corners(boxes: Array, mode: str) -> Array:
    """Top, left, bottom, right."""
    if mode.endswith("WIDTH_FIRST"):
        boxes = boxes[:, [1, 0, 3, 2]]
    if mode.startswith("CENTER_SIZE"):
        centres, halves = boxes[:, :2], boxes[:, 2:] / 2
        return np.concatenate([centres - halves, centres + halves], axis=1)
    return boxes


def _cut(image: Array, box: Array, size: tuple[int, int], mode: str, fill: Array) -> Array:
    top, left, bottom, right = box.tolist()
    down, across = _interval(top, bottom, size[0], mode), _interval(left, right, size[1], mode)
    rows, columns = np.meshgrid(down, across, indexing="ij")
    height, width = image.shape[1:]
    outside = (rows < 0) | (rows > height - 1) | (columns < 0) | (columns > width - 1)
    found = _bilinear(image, np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1), fill)
    return np.where(outside, fill, found)


def _interval(start: float, end: float, count: int, mode: str) -> Array:
    """Points of a box's side, as ``resize_bilinear`` takes them from a whole side, [0, size - 1]."""
    i, span = np.arange(count), end - start
    if mode == "ALIGN_CORNERS" and count == 1:
        points = np.array([span / 2])
    elif mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = i * (span / max(1, count - 1))
    elif mode == "DEFAULT":
        points = i * ((span + 1) / count)
    elif mode == "OFFSET_CORNERS":
        points = (i + 0.5) * (max(1.0, span) / count)
    else:
        points = (i + 0.5) * ((span + 1) / count) - 0.5
    return start + np.clip(points, min(0, span), max(0, span))
