"""Variations of a seed: its noise, turned a share of the way towards that of another one.

Legend: C channels of the latent, h w its height and width.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sd_runtime.noise import draw_noise
from sd_runtime.settings import ImageSettings

Float: TypeAlias = npt.NDArray[np.float32]

#: Cosine above which two noises are as good as parallel.
_PARALLEL = 0.9995


def varied(noise: Float, settings: ImageSettings) -> Float:
    """``noise`` (1, C, h, w) towards that of the variation seed, if ``settings`` have one."""
    if settings.variation_seed is None or settings.variation_strength is None:
        return noise
    other = draw_noise(noise.shape, settings.variation_seed, settings.rng)
    return slerp(noise, other, settings.variation_strength)


def slerp(low: Float, high: Float, share: float) -> Float:
    """From ``low`` to ``high``, both (1, C, h, w), along the circle between them: one for each column.

    Source: AUTOMATIC1111/stable-diffusion-webui, modules/rng.py (``slerp``), whose norm is over the rows of a
    latent without its first axis. What is parallel is mixed instead.
    """
    along = 2
    lengths = [np.linalg.norm(noise.astype(np.float64), axis=along, keepdims=True) for noise in (low, high)]
    cosine = ((low / lengths[0]) * (high / lengths[1])).sum(axis=along, keepdims=True)
    if cosine.mean() > _PARALLEL:
        return np.asarray((1 - share) * low + share * high, np.float32)
    angle = np.arccos(np.clip(cosine, -1, 1))
    parts = (np.sin((1 - share) * angle) * low + np.sin(share * angle) * high) / np.sin(angle)
    return np.asarray(parts, np.float32)
