"""Latents to pixels, and pictures to latents.

Legend: C channels, h w of the latent, H W of the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import VaeFacts

from sd_runtime.model import LoadedModel

if TYPE_CHECKING:
    from PIL.Image import Image

Float: TypeAlias = npt.NDArray[np.float32]
#: shape -> unit Gaussian noise
Draw: TypeAlias = Callable[[tuple[int, ...]], Float]


def decode_latent(decoder: LoadedModel, latent: Float, vae: VaeFacts) -> Float:
    """The decoder's picture of ``latent`` (1, C, h, w): (1, 3, H, W), nominally in [-1, 1]."""
    return decoder.predict("image", z=latent / vae.scaling_factor + vae.shift_factor)


def encode_picture(encoder: LoadedModel, picture: Float, vae: VaeFacts, draw: Draw | None) -> Float:
    """What the decoder would make ``picture`` (1, 3, H, W) of: (1, C, h, w), not scaled.

    A VAE gives a distribution over the latents: ``draw`` samples it, None takes its mode.
    """
    encoded = encoder.predict("latent", x=picture)
    if vae.encodes == "latents":
        return encoded
    mean, log_variance = np.split(encoded, 2, axis=1)
    if draw is None:
        return mean
    deviation = np.exp(np.float32(0.5) * np.clip(log_variance, -30.0, 20.0))
    sampled: Float = mean + deviation * draw(mean.shape)
    return sampled


def scaled(latent: Float, vae: VaeFacts) -> Float:
    """From what the decoder takes to what is diffused: the inverse of what :func:`decode_latent` does."""
    return (latent - np.float32(vae.shift_factor)) * np.float32(vae.scaling_factor)


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
