"""Where a picture starts, and what is laid beside its latent, from the pictures that the user gave.

The order in which noise is drawn is diffusers': the image's latent, the start, the masked image's latent,
then the steps.

Legend: C channels of the latent, h w its height and width.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ModelFacts
from sd_schedulers import FromImage, FromNoise, Start

from sd_runtime.model import LoadedModel
from sd_runtime.noise import NoiseStream
from sd_runtime.picture import encode_picture, scaled
from sd_runtime.request import Request
from sd_runtime.user_image import UserImage

Float: TypeAlias = npt.NDArray[np.float32]


def start(request: Request, model: ModelFacts, encoder: LoadedModel | None, noise: NoiseStream) -> Start:
    """Noise, or the image and noise; inpainting at full strength starts from noise alone."""
    settings = request.settings
    from_image = settings.mode == "image-to-image" or (
        settings.mode == "inpainting" and settings.strength != 1
    )
    if not from_image or encoder is None or request.image is None or settings.strength is None:
        return FromNoise(noise.draw(model.latent_shape))
    latent = scaled(encode_picture(encoder, request.image.signed(), model.vae, noise.draw), model.vae)
    return FromImage(latent, noise.draw(model.latent_shape), settings.strength)


def beside(
    request: Request, model: ModelFacts, encoder: LoadedModel | None, noise: NoiseStream
) -> Float | None:
    """What the denoiser sees of the user's pictures, (1, K, h, w), or None.

    Inpainting: the mask (a pixel of each cell), and the latent of the picture with its masked part grey.
    InstructPix2Pix: the mode of the picture's latents, which diffusers does not scale.
    """
    if encoder is None or request.image is None:
        return None
    if request.settings.mode == "instruct-pix2pix":
        return encode_picture(encoder, request.image.signed(), model.vae, None)
    if request.mask is None:
        return None
    return _masked(request.image, request.mask, model, encoder, noise)


def _masked(
    image: UserImage, mask: UserImage, model: ModelFacts, encoder: LoadedModel, noise: NoiseStream
) -> Float:
    repainted = mask.repainted()
    kept = image.signed() * (1 - repainted)
    latent = scaled(encode_picture(encoder, kept, model.vae, noise.draw), model.vae)
    return np.concatenate([_nearest(repainted, model), latent], axis=1)


def _nearest(mask: Float, model: ModelFacts) -> Float:
    """(1, 1, H, W) to (1, 1, h, w): the upper left pixel of each cell, as torch's ``nearest``."""
    rows = np.arange(model.latent.height) * model.image.height // model.latent.height
    columns = np.arange(model.latent.width) * model.image.width // model.latent.width
    return mask[:, :, rows][:, :, :, columns]
