"""The safety checker: a CLIP vision model that compares a picture with concepts it must not show.

Legend: H W the picture in pixels, S side of the vision model's input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_runtime.model import LoadedModel
from sd_runtime.models import Models

if TYPE_CHECKING:
    from PIL.Image import Image

Float: TypeAlias = npt.NDArray[np.float32]

#: CLIP's normalisation of RGB in [0, 1]. Source: openai/CLIP, clip/clip.py.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def checked(image: Image, models: Models) -> tuple[Image, bool]:
    """``image``, or a black one if the bundle has a safety checker and it objects; and whether it does."""
    if not models.bundle.components("safety_checker"):
        return image, False
    flagged = is_flagged(models.only("safety_checker"), image)
    return (blacked_out(image) if flagged else image), flagged


def is_flagged(checker: LoadedModel, image: Image) -> bool:
    """Whether the checker finds one of its concepts in ``image``, which has the model's size."""
    side = checker.input("clip_input").shape[-1]
    flags = checker.predict(
        "has_nsfw_concepts",
        clip_input=clip_input(image, side),
        images=np.asarray(image.convert("RGB"), np.float32)[None] / np.float32(255),
        adjustment=np.zeros(checker.input("adjustment").shape, np.float32),
    )
    return bool((flags > 0.5).any())


def clip_input(image: Image, side: int) -> Float:
    """(1, 3, S, S): shortest side to S (bicubic), centre cut out, normalised.

    Source: transformers, ``CLIPImageProcessor``, on Pillow.
    """
    from PIL.Image import Resampling

    shortest = min(image.size)
    size = (image.width * side // shortest, image.height * side // shortest)
    resized = image.convert("RGB").resize(size, resample=Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    cut = resized.crop((left, top, left + side, top + side))
    unit = np.asarray(cut, np.float32) / np.float32(255)
    normalised: Float = ((unit - MEAN) / DEVIATION).transpose(2, 0, 1)[None]
    return normalised


def blacked_out(image: Image) -> Image:
    """A black picture of the same size."""
    from PIL import Image as Pillow

    return Pillow.new("RGB", image.size)
