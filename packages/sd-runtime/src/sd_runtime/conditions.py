"""What the denoiser is told: texts, sizes, scores and the guidance scale, in the rows that guidance combines.

Legend: n rows, H W latent height and width, D width of the guidance embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ModelFacts

from sd_runtime.errors import SettingsError
from sd_runtime.guidance import Conditions, Guide, classifier_free, instructed, unguided
from sd_runtime.model import LoadedModel
from sd_runtime.settings import ImageSettings
from sd_runtime.text import EncodedText

Float: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """One prediction: its text, whether it is one to move away from, and whether it sees the picture."""

    text: EncodedText
    is_negative: bool = False
    sees_picture: bool = True


def is_guided(settings: ImageSettings, facts: ModelFacts) -> bool:
    """Whether the negative prompt plays a part, as diffusers decides it.

    Above a guidance scale of 1, unless that scale is told to the denoiser; InstructPix2Pix also wants an
    image guidance scale of 1 or more.
    """
    if facts.conditioning.guidance_embedding or settings.guidance_scale <= 1:
        return False
    return settings.image_guidance_scale is None or settings.image_guidance_scale >= 1


def conditions(
    unet: LoadedModel,
    facts: ModelFacts,
    settings: ImageSettings,
    *,
    positive: EncodedText,
    negative: EncodedText | None,
    beside: Float | None,
) -> Conditions:
    """Everything that ``unet`` is told; ``negative`` is None without guidance, ``beside`` (1, K, H, W)."""
    rows, guide = _rows(settings, positive, negative)
    told = {"encoder_hidden_states": np.concatenate([row.text.states for row in rows])}
    if facts.conditioning.time_ids != "none":
        told["text_embeds"] = np.concatenate([_pooled(row.text) for row in rows])
        told["time_ids"] = np.array([_time_ids(row, facts, settings) for row in rows], np.float32)
    if facts.conditioning.guidance_embedding:
        width = unet.input("timestep_cond").shape[-1]
        told["timestep_cond"] = guidance_embedding(settings.guidance_scale - 1, width).repeat(len(rows), 0)
    return Conditions(told, _pictures(rows, beside), guide)


def _rows(
    settings: ImageSettings, positive: EncodedText, negative: EncodedText | None
) -> tuple[list[Row], Guide]:
    if negative is None:
        return [Row(positive)], unguided
    if settings.image_guidance_scale is None:
        return [Row(negative, is_negative=True), Row(positive)], classifier_free(settings.guidance_scale)
    rows = [Row(positive), Row(negative), Row(negative, sees_picture=False)]
    return rows, instructed(settings.guidance_scale, settings.image_guidance_scale)


def _pooled(text: EncodedText) -> Float:
    if text.pooled is None:
        raise SettingsError("expected a text with its pooled embedding, got one without")
    return text.pooled


def _time_ids(row: Row, facts: ModelFacts, settings: ImageSettings) -> tuple[float, ...]:
    own = (facts.image.height, facts.image.width)
    corner = (*(settings.original_size or own), *(settings.crop_top_left or (0, 0)))
    if facts.conditioning.time_ids == "size":
        return (*corner, *(settings.target_size or own))
    score = settings.negative_aesthetic_score if row.is_negative else settings.aesthetic_score
    return (*corner, 0.0 if score is None else score)


def _pictures(rows: list[Row], beside: Float | None) -> Float | None:
    if beside is None:
        return None
    return np.concatenate([beside if row.sees_picture else np.zeros_like(beside) for row in rows])


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
