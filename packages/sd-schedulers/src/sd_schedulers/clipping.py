"""What a config wants done to the estimate of the clean latent before a step uses it.

Source: arXiv 2205.11487 (Imagen), section 2.3, for dynamic thresholding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from sd_schedulers.prediction import Float32
from sd_schedulers.settings import Settings

Clip: TypeAlias = Callable[[Float32], Float32]

CLIP_KEYS: Final = frozenset(("clip_sample", "clip_sample_range"))
THRESHOLD_KEYS: Final = frozenset(("thresholding", "dynamic_thresholding_ratio", "sample_max_value"))


def clip_of(settings: Settings, *, clips: bool | None = None) -> Clip | None:
    """The function that the config asks for; None where it asks for none.

    ``clips`` is the default of ``clip_sample``, None for schedulers that do not read that key. Thresholding
    goes before clipping.
    """
    if settings.flag("thresholding", default=False):
        return _dynamic(
            settings.number("dynamic_thresholding_ratio", 0.995, low=0, high=1),
            settings.number("sample_max_value", 1.0, low=1e-10, high=1e10),
        )
    if clips is None or not settings.flag("clip_sample", default=clips):
        return None
    limit = settings.number("clip_sample_range", 1.0, low=0, high=1e10)
    return lambda estimate: np.clip(estimate, -limit, limit)


def _dynamic(ratio: float, largest: float) -> Clip:
    """Clip each image to its own quantile of absolute values, from 1 to ``largest``, and scale by it."""

    def clip(estimate: Float32) -> Float32:
        axes = tuple(range(1, estimate.ndim))
        quantile = np.quantile(np.abs(estimate), ratio, axis=axes, keepdims=True)
        limit = np.minimum(np.maximum(quantile, 1), largest).astype(np.float32)
        clipped: Float32 = np.clip(estimate, -limit, limit) / limit
        return clipped

    return clip
