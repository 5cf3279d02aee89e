"""More around a picture: it is padded, and the padding is what a mask has painted anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from sd_bundle import ImageSize

from sd_runtime.errors import UserImageError
from sd_runtime.request import Request
from sd_runtime.user_image import opened, prepare_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from sd_runtime.settings import Margins


def outpainted(request: Request) -> Request:
    """``request`` with its image grown by ``outpaint``, and the mask for that, if it asks for it."""
    if request.outpaint is None or request.image is None or request.mask is not None:
        return request
    image, mask = padded(opened(request.image), request.outpaint)
    return replace(request, outpaint=None, image=image, mask=mask)


def padded(image: Image, margins: Margins) -> tuple[Image, Image]:
    """``image`` with its edge repeated outwards by ``margins``, and the mask, white there and black within.

    Raises:
        UserImageError: it would have more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    from PIL import Image as Pillow

    left, top, right, bottom = margins
    width, height = image.width + left + right, image.height + top + bottom
    limit = Pillow.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise UserImageError(
            f"expected a picture of at most {limit} pixels with its margins, got {width}x{height}"
        )
    pixels = prepare_image(image, ImageSize(width=image.width, height=image.height)).pixels
    grown = np.pad(pixels, ((top, bottom), (left, right), (0, 0)), mode="edge")
    mask = np.full((height, width), 255, np.uint8)
    mask[top : top + image.height, left : left + image.width] = 0
    return Pillow.fromarray(grown), Pillow.fromarray(mask)
