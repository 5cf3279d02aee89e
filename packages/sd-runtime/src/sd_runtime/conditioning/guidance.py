"""How predictions under several conditions become the one to follow.

Legend: n rows to predict, C channels, H W latent height and width, D width of the guidance embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ModelFacts

from sd_runtime.settings import ImageSettings

Float: TypeAlias = npt.NDArray[np.float32]

#: Of adaptive projected guidance: diffusers' threshold, and no momentum, as there. PNDM carries predictions
#: over by itself: a momentum of -0.5 tore the demo's pictures apart.
MOMENTUM: Final = 0.0
THRESHOLD: Final = 15.0
ETA: Final = 0.0
#: Of Perp-Neg: ComfyUI's default.
NEGATIVE_SCALE: Final = 1.0

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


def adaptive_projected(
    guidance_scale: float, *, momentum: float = MOMENTUM, threshold: float = THRESHOLD, eta: float = ETA
) -> Guide:
    """Rows are [negative, positive]; of their difference, what is parallel to the positive is left out.

    ``momentum`` of the difference over the steps, so the guide serves one picture; ``threshold``, the longest
    that the difference may be; ``eta``, how much of the parallel part stays. Colours burn out less.

    Source: Sadat et al., "Eliminating Oversaturation and Artifacts of High Guidance Scales", arXiv
    2410.02416; diffusers' ``guiders/adaptive_projected_guidance.py``.
    """
    running = np.zeros(1, np.float64)

    def guide(predictions: Float) -> Float:
        nonlocal running
        negative, positive = predictions[:1].astype(np.float64), predictions[1:].astype(np.float64)
        running = (positive - negative) + momentum * running
        length = np.sqrt(np.square(running).sum())
        difference = running * min(1.0, threshold / length) if threshold > 0 and length > 0 else running
        direction = positive / max(np.sqrt(np.square(positive).sum()), 1e-12)
        parallel = (difference * direction).sum() * direction
        guided = positive + (guidance_scale - 1) * (difference - parallel + eta * parallel)
        return np.asarray(guided, np.float32)

    return guide


def optimally_scaled(guidance_scale: float) -> Guide:
    """Rows are [negative, positive]; the negative is scaled to be as near to the positive as it can.

    Source: Fan et al., "CFG-Zero*", arXiv 2503.18886, eq. 8; diffusers'
    ``guiders/classifier_free_zero_star_guidance.py``. Its zero first step is of flow matching.
    """

    def guide(predictions: Float) -> Float:
        negative, positive = predictions[:1].astype(np.float64), predictions[1:].astype(np.float64)
        scale = (positive * negative).sum() / (np.square(negative).sum() + 1e-8)
        guided = scale * negative + guidance_scale * (positive - scale * negative)
        return np.asarray(guided, np.float32)

    return guide


def perpendicular_negative(guidance_scale: float, *, negative_scale: float = NEGATIVE_SCALE) -> Guide:
    """Rows are [empty, negative, positive]; of what the negative adds, its parallel part is left out.

    Of the negative's difference from the empty prompt only the part that is perpendicular to the positive's
    counts, ``negative_scale`` of it: what both prompts have in common is not taken away.

    Source: Armandpour et al., "Re-imagine the Negative Prompt Algorithm" (Perp-Neg), arXiv 2304.04968;
    ComfyUI, comfy_extras/nodes_perpneg.py (``perp_neg``).
    """

    def guide(predictions: Float) -> Float:
        empty, negative, positive = (row[None].astype(np.float64) for row in predictions)
        towards, away = positive - empty, negative - empty
        length = np.square(towards).sum()
        parallel = (away * towards).sum() / length * towards if length else 0.0
        guided = empty + guidance_scale * (towards - negative_scale * (away - parallel))
        return np.asarray(guided, np.float32)

    return guide


def rescaled(guide: Guide, rescale: float) -> Guide:
    """``guide``, with a share ``rescale`` of its spread brought back to that of the positive row, the last.

    Source: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891, eq.
    15 and 16; diffusers' ``rescale_noise_cfg``.
    """

    def rescaling(predictions: Float) -> Float:
        guided = guide(predictions)
        ratio = predictions[-1:].std(ddof=1) / guided.std(ddof=1)
        mixed: Float = guided * np.float32(rescale * ratio + (1 - rescale))
        return mixed

    return rescaling


#: The way that asks for a third row, of the empty prompt.
PERP_NEG: Final = "perp_neg"
#: Ways to guide by a negative row and a positive one, by the names of requests.
GUIDANCE: Final[Mapping[str, Callable[[float], Guide]]] = {
    "cfg": classifier_free,
    "apg": adaptive_projected,
    "cfg_zero": optimally_scaled,
    PERP_NEG: perpendicular_negative,
}


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
