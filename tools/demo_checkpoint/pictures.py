"""Draws the training pictures: one flat shape on one flat background, antialiased."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

SIZE = 128
_OVERSAMPLING = 4


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


def draw(
    shape: str,
    colour: tuple[int, int, int],
    background: tuple[int, int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """One picture, uint8 (H, W, 3); place and size vary a little with ``rng``."""
    scale = _OVERSAMPLING
    radius = rng.uniform(32, 42)
    x, y = SIZE / 2 + rng.uniform(-10, 10, size=2)
    mask = Image.new("L", (SIZE * scale, SIZE * scale), 0)
    pen = ImageDraw.Draw(mask)
    if shape == "circle":
        pen.ellipse(
            [(x - radius) * scale, (y - radius) * scale, (x + radius) * scale, (y + radius) * scale], fill=255
        )
    else:
        pen.polygon([(px * scale, py * scale) for px, py in outline(shape, x, y, radius)], fill=255)
    alpha = np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32)[..., None] / 255
    inside, outside = (np.asarray(rgb, np.float32) for rgb in (colour, background))
    blend = alpha * inside + (1 - alpha) * outside
    return np.round(blend).astype(np.uint8)
