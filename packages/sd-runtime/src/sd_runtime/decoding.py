"""Latents to pixels.

Legend: C channels, h w of the latent, H W of the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import VaeFacts

from sd_runtime.model import LoadedModel
from sd_runtime.models import Models

if TYPE_CHECKING:
    from PIL.Image import Image

Float: TypeAlias = npt.NDArray[np.float32]


def decoded(latent: Float, models: Models) -> Image:
    """The picture of ``latent`` (1, C, h, w), as it is diffused."""
    picture = decode_latent(models.only("image_decoder"), latent, models.bundle.manifest.model.vae)
    return to_image(to_pixels(picture))


def previewed(latent: Float, models: Models) -> Image:
    """What the tiny VAE for previews makes of ``latent`` (1, C, h, w), as it is diffused."""
    picture = models.only("preview_decoder").predict("image", z=latent)
    return to_image(to_pixels(picture))


def decode_latent(decoder: LoadedModel, latent: Float, vae: VaeFacts) -> Float:
    """The decoder's picture of ``latent`` (1, C, h, w): (1, 3, H, W), nominally in [-1, 1]."""
    return decoder.predict("image", z=latent / vae.scaling_factor + vae.shift_factor)


def to_pixels(picture: Float) -> npt.NDArray[np.uint8]:
    """(1, 3, H, W) in [-1, 1] to (H, W, 3) in 0..255.

    Source: diffusers, ``VaeImageProcessor.postprocess``: denormalize, clamp, scale, round half to even.
    """
    unit = np.clip(picture[0] / 2 + 0.5, 0.0, 1.0).transpose(1, 2, 0)
    pixels: npt.NDArray[np.uint8] = np.round(unit * 255).astype(np.uint8)
    return pixels


def to_image(pixels: npt.NDArray[np.uint8]) -> Image:
    """(H, W, 3) as a PIL image."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels))
