"""Edges and lines: white on black, as ControlNets are trained on them.

Legend: pixels are (H, W, 3) RGB in 0..255, results (H, W) in 0..255.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from .opencv import opencv

Bytes: TypeAlias = npt.NDArray[np.uint8]

#: The part of the pixels whose gradient is taken for white: a few are far steeper than the edges that count.
_STEEPEST: Final = 0.995
#: What lineart takes for paper, and the least that it takes for a line's depth.
_PAPER, _SHALLOWEST, _LINE = 8.0, 16.0, 127.0


def canny(pixels: Bytes, *, low: float, high: float) -> Bytes:
    """Thin edges. Source: Canny (1986); thresholds as in lllyasviel's ControlNet, 100 and 200."""
    cv2 = opencv()
    edges: Bytes = cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), low, high)
    return edges


def soft_edge(pixels: Bytes, *, sigma: float) -> Bytes:
    """How steep the brightness is (Scharr), of any channel, after a blur: edges without a threshold."""
    cv2 = opencv()
    smooth = _blurred(pixels.astype(np.float32), sigma)
    along = [cv2.Scharr(smooth, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))]
    steepness = np.hypot(*along).max(axis=2)
    white = float(np.quantile(steepness, _STEEPEST))
    # a flat picture has no edges, only what the arithmetic leaves
    return _bytes(steepness / white * 255 if white > 1 else np.zeros_like(steepness))


def lineart(pixels: Bytes, *, sigma: float) -> Bytes:
    """Lines darker than what is around them. Source: ``LineartStandardDetector`` in controlnet_aux."""
    values = pixels.astype(np.float32)
    depth = np.clip((_blurred(values, sigma) - values).min(axis=2), 0, 255)
    lines = depth[depth > _PAPER]
    return _bytes(depth / max(_SHALLOWEST, float(np.median(lines)) if lines.size else 0.0) * _LINE)


def scribble(pixels: Bytes, *, threshold: float) -> Bytes:
    """Broad strokes. Source: ``scribble_xdog`` in the web UI's ControlNet extension (Winnemöller, XDoG)."""
    values = pixels.astype(np.float32)
    difference = np.clip(255 - (_blurred(values, 5.0) - _blurred(values, 0.5)).min(axis=2), 0, 255)
    return np.where(2 * (255 - difference) > threshold, 255, 0).astype(np.uint8)


def _blurred(values: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    blurred: npt.NDArray[np.float32] = opencv().GaussianBlur(values, (0, 0), sigma)
    return blurred


def _bytes(values: npt.NDArray[Any]) -> Bytes:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
