"""What an inpainting ControlNet sees: the picture, and nothing where it is to be painted anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sd_controlnet.conditioning import Float, mask_array, prepare_conditioning
from sd_controlnet.errors import HintError

if TYPE_CHECKING:
    from PIL.Image import Image


def inpaint(image: Image, mask: Image | None) -> Float:
    """(1, 3, H, W): RGB in [0, 1], and -1 where ``mask`` is white (half or more).

    Source: ``make_inpaint_condition`` in the model card of lllyasviel/control_v11p_sd15_inpaint.

    Raises:
        HintError: no mask.
    """
    if mask is None:
        raise HintError("expected a mask for the hint 'inpaint', white where to paint anew, got none")
    hint = prepare_conditioning(image, height=image.height, width=image.width)
    covered = mask_array(mask, height=image.height, width=image.width) >= 0.5
    return np.where(covered, np.float32(-1), hint)
