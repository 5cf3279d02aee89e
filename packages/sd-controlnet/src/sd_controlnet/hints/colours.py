"""The picture itself with less in it.

Legend: pixels are (H, W, 3) RGB in 0..255, results (H, W, 3) or (H, W).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .opencv import opencv

Bytes: TypeAlias = npt.NDArray[np.uint8]


def grey(pixels: Bytes) -> Bytes:
    """Brightness alone, for recolouring."""
    cv2 = opencv()
    result: Bytes = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return result


def blur(pixels: Bytes, *, sigma: float) -> Bytes:
    """Without details."""
    result: Bytes = opencv().GaussianBlur(pixels, (0, 0), sigma)
    return result


def tile(pixels: Bytes, *, factor: float) -> Bytes:
    """A smaller picture enlarged again: what a tile ControlNet fills with new details."""
    cv2 = opencv()
    small = cv2.resize(pixels, _smaller(pixels, factor), interpolation=cv2.INTER_AREA)
    result: Bytes = cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return result


def palette(pixels: Bytes, *, factor: float) -> Bytes:
    """One colour for each square. Source: ``t2ia_color_grid``: the colour adapter is trained on 64."""
    cv2 = opencv()
    small = cv2.resize(pixels, _smaller(pixels, factor), interpolation=cv2.INTER_CUBIC)
    result: Bytes = cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return result


def _smaller(pixels: Bytes, factor: float) -> tuple[int, int]:
    """Width and height, as OpenCV has them."""
    height, width = pixels.shape[:2]
    return max(1, int(width / factor)), max(1, int(height / factor))
