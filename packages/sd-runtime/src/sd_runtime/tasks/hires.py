"""Text-to-image in two passes: drawn at one size, upscaled, and drawn over at a larger one ("hires fix").

Source: AUTOMATIC1111's web UI, modules/processing.py (``StableDiffusionProcessingTxt2Img.sample_hr_pass``);
each pass is diffusers' pipeline of that name.

Legend: C channels of the latent, h w its height and width, H W those of the larger one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ImageSize, LatentSize, ModelFacts
from sd_schedulers import FromImage, Step

from sd_runtime.errors import SettingsError
from sd_runtime.settings import ImageSettings
from sd_runtime.tasks.image_to_image import IMAGE_TO_IMAGE
from sd_runtime.tasks.task import Begun, Given
from sd_runtime.tasks.turns import in_turn

Float: TypeAlias = npt.NDArray[np.float32]

#: How much of the schedule runs on the upscaled picture: the web UI's.
STRENGTH: Final = 0.7
#: By the names of requests, those of the web UI: the latent itself, or the picture that it stands for.
UPSCALERS: Final[Mapping[str, str]] = {"latent": "Latent", "lanczos": "Lanczos"}
UPSCALER: Final = "latent"
#: Beyond, nobody has a bundle, and sizes are no numbers of pixels any more.
LARGEST_SCALE: Final = 8.0


def larger_size(size: ImageSize, scale: float) -> ImageSize:
    """``size``, ``scale`` times.

    Raises:
        SettingsError: that is no whole number of pixels.
    """
    sides = (size.width * scale, size.height * scale)
    if any(side != round(side) for side in sides):
        raise SettingsError(
            f"expected a hires_scale that makes whole pixels of {size}, got {scale:g}: "
            f"{sides[0]:g}x{sides[1]:g}"
        )
    return ImageSize(width=round(sides[0]), height=round(sides[1]))


def check_larger(model: ModelFacts, larger: ModelFacts) -> None:
    """Refuse a second pass by another model, whose latents or prompts may mean something else."""
    for name in ("identifier", "family", "task", "vae", "prediction_type", "conditioning"):
        expected, got = getattr(model, name), getattr(larger, name)
        if expected != got:
            raise SettingsError(
                f"expected the hires pass to be of the same model, with {name} {expected}, got {got}: "
                "convert the same checkpoint for both sizes"
            )


def second_pass(settings: ImageSettings, larger: ModelFacts) -> ImageSettings:
    """The settings of the pass over the upscaled picture: image-to-image of the same seed."""
    strength = settings.hires_strength or STRENGTH
    return replace(
        settings,
        mode=IMAGE_TO_IMAGE.name,
        width=larger.image.width,
        height=larger.image.height,
        strength=strength,
        num_inference_steps=schedule_length(settings.hires_steps or settings.num_inference_steps, strength),
        hires_scale=None,
        hires_strength=None,
        hires_steps=None,
        hires_upscaler=None,
    )


def schedule_length(steps: int, strength: float) -> int:
    """Of how many steps ``strength`` has to run so that ``steps`` of them do: the fewest.

    Example:
        >>> schedule_length(20, 0.5), schedule_length(7, 0.7)
        (40, 10)
    """
    length = max(steps, math.floor(steps / strength) - 1)
    while int(length * strength) < steps:
        length += 1
    return length


def begin(given: Given, latent: Float, upscaler: str) -> Begun:
    """Where the second pass starts: the first one's ``latent`` (1, C, h, w), or its picture in ``given``."""
    if upscaler == "latent":
        upscaled = upscaled_latent(latent, given.model.latent)
        strength = given.settings.strength or STRENGTH
        return Begun(FromImage(upscaled, given.fresh_noise(), strength))
    return IMAGE_TO_IMAGE.begin(given)


def upscaled_latent(latent: Float, size: LatentSize) -> Float:
    """``latent`` (1, C, h, w) between its elements: (1, C, H, W).

    Source: torch's ``interpolate(mode="bilinear", align_corners=False)``, which the web UI takes.
    """
    rows, columns = _between(latent.shape[2], size.height), _between(latent.shape[3], size.width)
    upscaled: Float = np.einsum("Hh,bchw,Ww->bcHW", rows, latent, columns, optimize=True)
    return np.ascontiguousarray(upscaled, np.float32)


def _between(count: int, wanted: int) -> Float:
    """(wanted, count): what each element of a longer row takes of the two that its centre lies between."""
    centres = np.clip((np.arange(wanted) + 0.5) * count / wanted - 0.5, 0, count - 1)
    distances = np.abs(centres[:, None] - np.arange(count))
    weights: Float = np.maximum(0, 1 - distances).astype(np.float32)
    return weights


def in_two_passes(
    steps: Iterator[Step], second: Callable[[Float], Iterator[Step]], *, more: int
) -> Iterator[Step]:
    """The first pass's ``steps``, then those that ``second`` makes of its latent; it will take ``more``."""
    return in_turn(steps, lambda last: second(last.latent), total=lambda step: step.total + more)
