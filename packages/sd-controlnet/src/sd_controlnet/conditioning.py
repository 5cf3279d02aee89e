"""The picture that steers: from an image file to the array that a ControlNet takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sd_controlnet.errors import ControlNetError

if TYPE_CHECKING:
    from PIL.Image import Image


def prepare_conditioning(image: Image, *, height: int, width: int) -> npt.NDArray[np.float32]:
    """``image`` in the layout of the port ``controlnet_cond``.

    Args:
        image: a PIL image of any mode and size (edges, depth, a pose, ...).
        height: of the result, in pixels: that of the picture to draw.
        width: likewise.

    Returns:
        (1, 3, height, width), RGB in [0, 1]; the model casts it to its port's dtype.

    Raises:
        ControlNetError: a size below one.

    Source: diffusers, ``VaeImageProcessor(do_convert_rgb=True, do_normalize=False).preprocess``: Lanczos
        resampling first, conversion to RGB second.
    """
    from PIL import Image

    if height < 1 or width < 1:
        raise ControlNetError(f"expected a height and width of at least 1 pixel, got {height} and {width}")
    # PIL's sizes are (width, height), numpy's shapes (height, width).
    resized = image.resize((width, height), Image.Resampling.LANCZOS).convert("RGB")
    pixels = np.asarray(resized, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
