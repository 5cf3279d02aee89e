"""Draws the training pictures: one flat shape on one flat background, antialiased."""

from __future__ import annotations

import numpy as np
from sdc.demo.shapes import SIZE, coverage


def paint(covered: np.ndarray, colour: tuple[int, int, int], background: tuple[int, int, int]) -> np.ndarray:
    """A picture, uint8 (H, W, 3), of what :func:`coverage` returned."""
    alpha = covered[..., None]
    inside, outside = (np.asarray(rgb, np.float32) for rgb in (colour, background))
    blend = alpha * inside + (1 - alpha) * outside
    return np.round(blend).astype(np.uint8)


def draw(
    shape: str,
    colour: tuple[int, int, int],
    background: tuple[int, int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """One picture, uint8 (H, W, 3); place and size vary a little with ``rng``."""
    radius = rng.uniform(32, 42)
    x, y = SIZE / 2 + rng.uniform(-10, 10, size=2)
    return paint(coverage(shape, x, y, radius), colour, background)
