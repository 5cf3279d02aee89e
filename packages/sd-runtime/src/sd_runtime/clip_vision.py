"""Pictures as CLIP's vision models see them: safety checkers, and the image encoders of IP-Adapters.

Legend: S side of the vision model's input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Float: TypeAlias = npt.NDArray[np.float32]

#: CLIP's normalisation of RGB in [0, 1]. Source: openai/CLIP, clip/clip.py.
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


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
