"""A picture changed as the prompt says, by a UNet that sees it in four more channels.

Source: arXiv 2211.09800 (InstructPix2Pix); diffusers' ``StableDiffusionInstructPix2PixPipeline``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sd_bundle import ModelFacts
from sd_schedulers import FromNoise

from sd_runtime.tasks.task import Begun, Given, Task

IMAGE_GUIDANCE_SCALE: Final = 1.5


def defaults(_: ModelFacts) -> Mapping[str, float]:
    """How far to follow the picture."""
    return {"image_guidance_scale": IMAGE_GUIDANCE_SCALE}


def begin(given: Given) -> Begun:
    """Noise; beside it the mode of the picture's latents, which diffusers does not scale."""
    start = FromNoise(given.fresh_noise())
    return Begun(start, extra_channels=given.mode_of(given.picture.signed()))


INSTRUCT: Final = Task(
    name="instruct-pix2pix",
    models=frozenset(("instruct-pix2pix",)),
    begin=begin,
    needs=("image",),
    defaults=defaults,
    loads=("image_encoder",),
)
