"""The masked part of a picture painted anew, by a UNet that sees mask and picture, or by any other.

A UNet of nine channels is shown the mask and the rest of the picture. Any other is shown, in the part that is
kept, the picture at the noise level of the moment, so that what it paints goes with it.

Source: arXiv 2112.10752 (Latent Diffusion), section 4.5, for nine channels; arXiv 2206.02779 (Blended Latent
Diffusion), algorithm 1, for blending; diffusers' ``StableDiffusionInpaintPipeline`` for both; for what the
masked part starts from, AUTOMATIC1111's web UI, modules/processing.py (``StableDiffusionProcessingImg2Img``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ModelFacts
from sd_schedulers import FromImage, FromNoise, NoiseSchedule, Start, Step, mix

from sd_runtime.conditioning.pictures import mask_of_latent
from sd_runtime.denoiser import Denoiser
from sd_runtime.masking import filled
from sd_runtime.tasks.task import Begun, Given, Task
from sd_runtime.user_image import UserImage

Float: TypeAlias = npt.NDArray[np.float32]

#: From noise alone, as in diffusers.
STRENGTH: Final = 1.0


def defaults(_: ModelFacts) -> Mapping[str, float]:
    """How much of the schedule runs on the picture."""
    return {"strength": STRENGTH}


def begin_seeing(given: Given) -> Begun:
    """For nine channels: the mask (a pixel of each cell), and the picture with its masked part grey."""
    latent = given.diffused(_seen(given).signed()) if _starts_from_picture(given) else None
    noise = given.fresh_noise()
    repainted = given.cover.repainted()
    part = mask_of_latent(repainted, given.model)
    kept = given.diffused(given.picture.signed() * (1 - repainted))
    channels = np.concatenate([part, kept], axis=1)
    return Begun(_start(given, latent, noise, part), extra_channels=channels)


def begin_blending(given: Given) -> Begun:
    """For any other UNet: before each evaluation but the first, the kept part is the picture with noise."""
    latent, noise = given.diffused(_seen(given).signed()), given.fresh_noise()
    given.fresh_noise()  # diffusers draws here for a masked picture that nobody looks at
    repainted = mask_of_latent(given.cover.repainted(), given.model)

    def around(denoiser: Denoiser) -> Denoiser:
        evaluations = 0

        def blended(seen: Float, timestep: float) -> Float:
            nonlocal evaluations
            evaluations += 1
            if evaluations == 1:  # all of it is as noisy as the start
                return denoiser(seen, timestep)
            kept = _with_noise(latent, noise, given.schedule, timestep)
            return denoiser(_joined(repainted, seen, kept), timestep)

        return blended

    def shown(step: Step) -> Step:
        preview = _joined(repainted, step.denoised, latent)
        if step.index + 1 < step.total:
            return replace(step, denoised=preview)
        return replace(step, denoised=preview, latent=_joined(repainted, step.latent, latent))

    return Begun(_start(given, latent, noise, repainted), around=around, shown=shown)


def _starts_from_picture(given: Given) -> bool:
    """diffusers leaves the picture out at a strength of 1; who says what to start from wants it, too."""
    return (given.settings.strength or STRENGTH) < 1 or given.settings.mask_content is not None


def _seen(given: Given) -> UserImage:
    """The picture that is encoded. What is to be of noise or of nothing had better be filled before, too."""
    content = given.settings.mask_content
    return given.picture if content in (None, "original") else filled(given.picture, given.cover)


def _start(given: Given, latent: Float | None, noise: Float, repainted: Float) -> Start:
    if latent is None or not _starts_from_picture(given):
        return FromNoise(noise)
    content = {"latent_noise": noise, "latent_nothing": np.zeros_like(noise)}
    new = content.get(given.settings.mask_content or "", latent)
    return FromImage(_joined(repainted, new, latent), noise, given.settings.strength or STRENGTH)


def _with_noise(latent: Float, noise: Float, schedule: NoiseSchedule, timestep: float) -> Float:
    """``latent`` as the network is to see it at ``timestep``."""
    at = schedule.level(schedule.sigma(timestep))
    return schedule.network_input(mix(latent, noise, at=at), at=at)


def _joined(repainted: Float, new: Float, kept: Float) -> Float:
    """``new`` where the mask is 1, ``kept`` where it is 0."""
    joined: Float = np.where(repainted > 0, new, kept)
    return joined


INPAINTING: Final = Task(
    name="inpainting",
    models=frozenset(("inpainting",)),
    begin=begin_seeing,
    needs=("image", "mask"),
    defaults=defaults,
    options=("mask_blur", "mask_content", "padding_mask_crop"),
    loads=("image_encoder",),
)
BLENDED_INPAINTING: Final = replace(INPAINTING, models=frozenset(("text-to-image",)), begin=begin_blending)
