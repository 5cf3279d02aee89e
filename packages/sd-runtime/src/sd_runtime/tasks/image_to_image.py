"""A picture that starts from another one, with noise added.

Source: arXiv 2108.01073 (SDEdit); diffusers' ``StableDiffusionImg2ImgPipeline``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sd_bundle import ModelFacts
from sd_schedulers import FromImage

from sd_runtime.tasks.task import Begun, Given, Task

#: How much of the schedule runs on an image, in diffusers' pipelines.
STRENGTH: Final = 0.8
REFINER_STRENGTH: Final = 0.3


def defaults(model: ModelFacts) -> Mapping[str, float]:
    """Refiners change little."""
    return {"strength": REFINER_STRENGTH if model.family == "sdxl-refiner" else STRENGTH}


def begin(given: Given) -> Begun:
    """The image's latent and noise, and the last ``strength`` of the schedule."""
    latent = given.diffused(given.picture.signed())
    return Begun(FromImage(latent, given.fresh_noise(), given.settings.strength or STRENGTH))


IMAGE_TO_IMAGE: Final = Task(
    name="image-to-image",
    models=frozenset(("text-to-image",)),
    begin=begin,
    needs=("image",),
    defaults=defaults,
    loads=("image_encoder",),
    refinable=True,
)
