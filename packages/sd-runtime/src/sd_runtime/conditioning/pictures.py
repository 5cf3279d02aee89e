"""Pictures to latents, and masks to what covers them.

Legend: C channels of the latent, h w its height and width, H W those of the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ModelFacts, VaeFacts

from sd_runtime.model import LoadedModel

Float: TypeAlias = npt.NDArray[np.float32]
#: shape -> unit Gaussian noise
Draw: TypeAlias = Callable[[tuple[int, ...]], Float]


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
    """From what the decoder takes to what is diffused: the inverse of what decoding does."""
    return (latent - np.float32(vae.shift_factor)) * np.float32(vae.scaling_factor)


def mask_of_latent(mask: Float, model: ModelFacts) -> Float:
    """(1, 1, H, W) to (1, 1, h, w): the upper left pixel of each cell, as torch's ``nearest``."""
    rows = np.arange(model.latent.height) * model.image.height // model.latent.height
    columns = np.arange(model.latent.width) * model.image.width // model.latent.width
    return mask[:, :, rows][:, :, :, columns]
