"""Says which colour, shape and background a picture shows, from its pixels alone.

Nothing here knows how the training pictures are drawn or which prompt was given: colours are named by hue,
saturation and value, shapes by how the largest region that differs from the border fills its convex hull and
the smallest rectangle around it. What is not clear is ``None`` and counts as wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

FloatArray = npt.NDArray[np.floating[Any]]
Mask = npt.NDArray[np.bool_]

_HUES = (  # upper bound in degrees, name
    (14.0, "red"),
    (44.0, "orange"),
    (72.0, "yellow"),
    (170.0, "green"),
    (190.0, None),
    (256.0, "blue"),
    (330.0, "purple"),
    (342.0, None),
    (360.0, "red"),
)
_SMALLEST_REGION, _LARGEST_REGION = 0.03, 0.7  # of the picture's area
_SECTORS = 72
_DIFFERENT = 60.0  # RGB distance from the background, of 441


@dataclass(frozen=True)
class Verdict:
    """What a picture shows; ``None`` where it is not clear."""

    colour: str | None
    shape: str | None
    background: str | None

    def __str__(self) -> str:
        return f"{self.colour or '?'} {self.shape or '?'} on {self.background or '?'}"


def judge(picture: Image.Image) -> Verdict:
    """Look at a picture of one flat shape on a flat background, of any size."""
    pixels, ground = _pixels(picture)
    region = _region(pixels, ground)
    background = name_colour(ground)
    if not _SMALLEST_REGION <= region.mean() <= _LARGEST_REGION:
        return Verdict(None, None, background)
    colour = name_colour(np.median(pixels[_interior(region)], axis=0))
    return Verdict(colour, name_shape(region), background)


def overlap(picture: Image.Image, wanted: Mask) -> float:
    """Intersection over union, 0..1, of the region that a picture shows with the (H, W) it was to show."""
    region = _region(*_pixels(picture))
    return float((region & wanted).sum() / max(1, (region | wanted).sum()))


def _pixels(picture: Image.Image) -> tuple[FloatArray, FloatArray]:
    """The picture's, and what its background is."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    return pixels, np.median(_border(pixels), axis=0)


def _region(pixels: FloatArray, ground: FloatArray) -> Mask:
    return largest_region(np.linalg.norm(pixels - ground, axis=-1) > _DIFFERENT)


def name_colour(rgb: FloatArray) -> str | None:
    """Name a colour (3 values, 0..255) by hue, saturation and value; ``None`` for grey and brown."""
    high, low = float(rgb.max()), float(rgb.min())
    value, saturation = high / 255, (high - low) / max(high, 1e-9)
    if value < 0.25:
        return "black"
    if saturation < 0.18:
        return "white" if value > 0.8 else None
    if saturation < 0.4 or value < 0.35:
        return None
    hue = _hue(rgb, high, low)
    return next(name for bound, name in _HUES if hue <= bound)


def _hue(rgb: FloatArray, high: float, low: float) -> float:
    red, green, blue = (float(channel) for channel in rgb)
    if high == red:
        sector = ((green - blue) / (high - low)) % 6
    elif high == green:
        sector = (blue - red) / (high - low) + 2
    else:
        sector = (red - green) / (high - low) + 4
    return 60 * sector


def name_shape(region: Mask) -> str | None:
    """Name a filled region by two ratios that neither place, size nor rotation changes.

    ============  ==================  ===============================
    shape         area / convex hull  hull / smallest rectangle
    ============  ==================  ===============================
    circle        1                   pi / 4 = 0.785
    square        1                   1
    triangle      1                   0.5, and three points
    star          about 0.5           about 0.69, and five points
    ============  ==================  ===============================
    """
    hull = convex_hull(region)
    hull_area = _polygon_area(hull)
    solidity = float(region.sum()) / max(hull_area, 1e-9)
    filling = hull_area / max(_smallest_rectangle(hull), 1e-9)
    if solidity < 0.75:
        return "star" if solidity > 0.35 and count_points(region) == 5 else None
    if solidity < 0.9:
        return None
    if filling > 0.9:
        return "square"
    if 0.7 < filling < 0.86:
        return "circle"
    return "triangle" if 0.42 < filling < 0.7 and count_points(region) == 3 else None


def count_points(region: Mask) -> int:
    """How many points stick out: the strongest harmonic of the outline's distance from its centre."""
    y, x = np.nonzero(region)
    dx, dy = x - x.mean(), y - y.mean()
    sector = ((np.arctan2(dy, dx) + math.pi) / (2 * math.pi) * _SECTORS).astype(int) % _SECTORS
    outline = np.zeros(_SECTORS)
    np.maximum.at(outline, sector, np.hypot(dx, dy))
    return 1 + int(np.argmax(np.abs(np.fft.rfft(outline))[1:12]))


def largest_region(mask: Mask) -> Mask:
    """The largest 4-connected region of a mask, with its holes as they are."""
    canvas = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).copy()  # writable: floodfill needs it
    best = np.zeros_like(mask)
    left = mask.copy()
    while left.sum() > best.sum():
        y, x = np.argwhere(left)[0]
        ImageDraw.floodfill(canvas, (int(x), int(y)), 128)
        found = np.asarray(canvas) == 128
        ImageDraw.floodfill(canvas, (int(x), int(y)), 0)
        left &= ~found
        if found.sum() > best.sum():
            best = found
    return best


def _border(pixels: FloatArray) -> FloatArray:
    width = max(1, min(pixels.shape[:2]) // 32)
    inner = np.ones(pixels.shape[:2], dtype=bool)
    inner[width:-width, width:-width] = False
    border: FloatArray = pixels[inner]
    return border


def _interior(region: Mask) -> Mask:
    """The region without its antialiased rim; the whole region where nothing else is left."""
    inner = region.copy()
    for _ in range(max(1, min(region.shape) // 64)):
        padded = np.pad(inner, 1)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner if inner.any() else region


def convex_hull(region: Mask) -> FloatArray:
    """Corners (K, 2) of the convex hull around the region's pixels (Andrew's monotone chain)."""
    rows = np.flatnonzero(region.any(axis=1))
    corners = [
        (float(x), float(y + dy))
        for y in rows
        for x in (np.argmax(region[y]), region.shape[1] - np.argmax(region[y, ::-1]))
        for dy in (0, 1)
    ]
    points = sorted(set(corners))
    return np.array([*_half_hull(points), *_half_hull(points[::-1])])


def _half_hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    chain: list[tuple[float, float]] = []
    for x, y in points:
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2:]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            chain.pop()
        chain.append((x, y))
    return chain[:-1]


def _polygon_area(corners: FloatArray) -> float:
    x, y = corners.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def _smallest_rectangle(hull: FloatArray) -> float:
    """Area of the smallest rectangle around a convex polygon; one side lies along one of its edges."""
    edges = np.roll(hull, -1, axis=0) - hull
    areas = []
    for angle in {round(math.atan2(dy, dx), 6) for dx, dy in edges}:
        cosine, sine = math.cos(angle), math.sin(angle)
        turned = hull @ np.array([[cosine, -sine], [sine, cosine]])
        width, height = np.ptp(turned, axis=0)
        areas.append(float(width * height))
    return min(areas)
