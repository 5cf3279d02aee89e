"""The shapes of the demo checkpoint's world: how much of a picture each covers, and its edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

#: Pixels of a picture's side.
SIZE = 128
_OVERSAMPLING = 4
_RADII = (15, 42)
_MARGIN = 1.25  # of the radius: what a star or triangle reaches beyond it


def place(rng: np.random.Generator) -> tuple[float, float, float]:
    """Centre and radius, in pixels, of a shape that lies within the picture, wherever that is."""
    radius = rng.uniform(*_RADII)
    reach = min(SIZE / 2, radius * _MARGIN)
    x, y = rng.uniform(reach, SIZE - reach, size=2)
    return float(x), float(y), float(radius)


def outline(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """The corners of a shape centred on (x, y), in pixels; areas are alike for one radius."""
    if shape == "square":
        r = radius * 0.86
        return [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]
    if shape == "triangle":
        r = radius * 1.18
        return [
            (x + r * math.sin(2 * math.pi * k / 3), y + 0.22 * radius - r * math.cos(2 * math.pi * k / 3))
            for k in range(3)
        ]
    if shape == "star":
        return [
            (x + r * math.sin(math.pi * k / 5), y - r * math.cos(math.pi * k / 5))
            for k, r in enumerate([radius * 1.2, radius * 0.5] * 5)
        ]
    raise ValueError(f"no outline for {shape!r}")


def coverage(shape: str, x: float, y: float, radius: float) -> npt.NDArray[Any]:
    """How much of each pixel (H, W) a shape centred on (x, y) covers, 0 to 1."""
    scale = _OVERSAMPLING
    mask = Image.new("L", (SIZE * scale, SIZE * scale), 0)
    pen = ImageDraw.Draw(mask)
    if shape == "circle":
        pen.ellipse(
            [(x - radius) * scale, (y - radius) * scale, (x + radius) * scale, (y + radius) * scale], fill=255
        )
    else:
        pen.polygon([(px * scale, py * scale) for px, py in outline(shape, x, y, radius)], fill=255)
    return np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32) / 255


def edges(covered: npt.NDArray[Any], width: int = 1) -> npt.NDArray[Any]:
    """The outline of a covered region as an edge map, uint8 (H, W, 3): white lines on black, as Canny's."""
    inside = covered > 0.5
    line = np.zeros_like(inside)
    for axis in (0, 1):
        change = np.diff(inside.astype(np.int8), axis=axis) != 0
        line |= np.pad(change, [(0, 1) if one == axis else (0, 0) for one in (0, 1)])
    drawn = Image.fromarray(np.where(line, 255, 0).astype(np.uint8))
    if width > 1:  # a filter of one pixel ends the process in some builds of Pillow
        drawn = drawn.filter(ImageFilter.MaxFilter(2 * width - 1))
    return np.repeat(np.asarray(drawn)[..., None], 3, axis=-1)
