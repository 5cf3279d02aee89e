"""How predictions under several conditions become the one to follow.

Legend: n rows to predict, C channels, H W latent height and width, D width of the guidance embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ModelFacts

from sd_runtime.settings import ImageSettings

Float: TypeAlias = npt.NDArray[np.float32]
#: predictions (n, C, H, W), one for each row of the conditions -> the one to follow, (1, C, H, W)
Guide: TypeAlias = Callable[[Float], Float]


def is_guided(settings: ImageSettings, facts: ModelFacts) -> bool:
    """Whether the negative prompt plays a part, as diffusers decides it.

    Above a guidance scale of 1, unless that scale is told to the denoiser; InstructPix2Pix also wants an
    image guidance scale of 1 or more.
    """
    if facts.conditioning.guidance_embedding or settings.guidance_scale <= 1:
        return False
    return settings.image_guidance_scale is None or settings.image_guidance_scale >= 1


def unguided(predictions: Float) -> Float:
    """The one prediction there is."""
    return predictions


def classifier_free(guidance_scale: float) -> Guide:
    """Rows are [negative, positive].

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598, eq. 6, with
    ``guidance_scale = 1 + w`` as in diffusers.
    """

    def guide(predictions: Float) -> Float:
        negative, positive = predictions[:1], predictions[1:]
        guided: Float = negative + np.float32(guidance_scale) * (positive - negative)
        return guided

    return guide


def instructed(guidance_scale: float, image_guidance_scale: float) -> Guide:
    """Rows are [text and picture, picture alone, neither], in diffusers' order.

    Source: Brooks et al., "InstructPix2Pix", arXiv 2211.09800, eq. 3.
    """

    def guide(predictions: Float) -> Float:
        text, picture, neither = predictions[:1], predictions[1:2], predictions[2:]
        by_text = np.float32(guidance_scale) * (text - picture)
        guided: Float = neither + by_text + np.float32(image_guidance_scale) * (picture - neither)
        return guided

    return guide


def guidance_embedding(weight: float, width: int) -> Float:
    """Sines, then cosines, of ``1000 weight`` at ``width / 2`` frequencies: (1, D), zero-padded if odd.

    Source: arXiv 2210.03142 (On Distillation of Guided Diffusion Models), as diffusers'
    ``get_guidance_scale_embedding``.
    """
    half = width // 2
    exponents = np.arange(half, dtype=np.float32) * np.float32(-math.log(10000.0) / max(half - 1, 1))
    angles = np.float32(weight * 1000.0) * np.exp(exponents)
    padding = np.zeros(width % 2, np.float32)
    embedding: Float = np.concatenate([np.sin(angles), np.cos(angles), padding])[None].astype(np.float32)
    return embedding
