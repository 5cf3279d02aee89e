"""What masks do beside saying where: soft edges, the part alone, what it starts from, what is kept around it.

The names are those of diffusers' ``StableDiffusionInpaintPipeline`` (``padding_mask_crop``) and of
AUTOMATIC1111's web UI ("Mask blur", "Masked content", "Inpaint area: Only masked").

Source: diffusers, ``VaeImageProcessor`` (``blur``, ``get_crop_region``, ``apply_overlay``, its resize modes
"fill" and "crop"); the web UI, modules/processing.py (``StableDiffusionProcessingImg2Img``) and masking.py.

Legend: H W the model's picture in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ImageSize

from sd_runtime.errors import SettingsError
from sd_runtime.user_image import UserImage, opened, prepare_image, prepare_mask

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

Float: TypeAlias = npt.NDArray[np.float32]
#: Left, top, right and bottom, in pixels.
Box: TypeAlias = tuple[int, int, int, int]

#: By the names of requests: the web UI's names of what the masked part starts from.
MASK_CONTENTS: Final = {
    "original": "original",
    "fill": "fill",
    "latent_noise": "latent noise",
    "latent_nothing": "latent nothing",
}
#: The web UI's name for what ``padding_mask_crop`` asks for.
ONLY_MASKED: Final = "Only masked"
#: Deviations of the layers of :func:`filled`, and how often each lies on those below.
_LAYERS: Final = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))


@dataclass(frozen=True, slots=True)
class Kept:
    """A given picture, around what is painted into it: ``image`` in RGB, ``mask`` in grey, of one size.

    ``mask`` is white where the picture is new. ``box`` is the part of the picture that is painted, None if
    that is all of it.
    """

    image: Image
    mask: Image
    box: Box | None

    def around(self, painted: Image) -> Image:
        """``painted``, a picture of the model's size, in its place, in a picture of the size of ``image``."""
        from PIL import Image as Pillow

        if self.box is not None:
            left, top, right, bottom = self.box
            whole = self.image.copy()
            whole.paste(_cropped(painted, right - left, bottom - top), (left, top))
            painted = whole
        return Pillow.composite(painted, self.image, self.mask)


@dataclass(frozen=True, slots=True)
class Masked:
    """Image and mask at the model's size, and what is put back around the painted part, if anything is."""

    image: UserImage
    mask: UserImage
    kept: Kept | None


def masked(
    image: Image | str | Path,
    mask: Image | str | Path,
    size: ImageSize,
    *,
    blur: float | None,
    padding: int | None,
) -> Masked:
    """``image`` and ``mask`` as a model of ``size`` is to see them.

    ``blur`` is the deviation, in pixels of the mask, of the Gaussian that softens it; ``padding``, how many
    pixels around what is white in the mask are seen, None for the whole picture. With either, the picture is
    put back around what is painted; with neither, it is not, as in diffusers.

    Raises:
        UserImageError: a picture that cannot be read.
        SettingsError: nothing to cut out, since nothing of the mask is white.
    """
    if padding is not None:
        return _part(image, mask, size, blur=blur or 0, padding=padding)
    seen = prepare_image(image, size)
    if blur is None:
        return Masked(seen, prepare_mask(mask, size), None)
    soft = prepare_mask(_softened(mask, blur), size)
    whole = np.clip(soft.pixels.astype(np.int32) * 2, 0, 255)  # new is what the model was told to paint
    return Masked(seen, soft, Kept(_picture(seen.pixels), _picture(whole), None))


def _part(
    image: Image | str | Path, mask: Image | str | Path, size: ImageSize, *, blur: float, padding: int
) -> Masked:
    """The masked part alone, at the model's size."""
    given = opened(image)
    own = ImageSize(width=given.width, height=given.height)
    whole = _picture(prepare_image(given, own).pixels)
    cover = _softened(_picture(prepare_mask(mask, own).pixels), blur)
    box = crop_region(cover, size, padding)
    seen, soft = (np.asarray(_fitted(each.crop(box), size)) for each in (whole, cover))
    return Masked(UserImage(seen, given.size), UserImage(soft, given.size), Kept(whole, cover, box))


def _softened(mask: Image | str | Path, deviation: float) -> Image:
    """``mask`` in grey at its own size, with soft edges."""
    from PIL import ImageFilter

    given = opened(mask)
    own = ImageSize(width=given.width, height=given.height)
    return _picture(prepare_mask(given, own).pixels).filter(ImageFilter.GaussianBlur(deviation))


def crop_region(mask: Image, size: ImageSize, padding: int) -> Box:
    """What of ``mask`` is not black, with ``padding`` around, in the proportions of ``size`` where it fits.

    Raises:
        SettingsError: all of it is black.
    """
    found = mask.getbbox()
    if found is None:
        raise SettingsError(
            "expected a mask with something white in it for padding_mask_crop, got a black one"
        )
    left, right = max(found[0] - padding, 0), min(found[2] + padding, mask.width)
    top, bottom = max(found[1] - padding, 0), min(found[3] + padding, mask.height)
    wanted = size.width / size.height
    if (right - left) / (bottom - top) > wanted:
        top, bottom = _longer(top, bottom, (right - left) / wanted, mask.height)
    else:
        left, right = _longer(left, right, (bottom - top) * wanted, mask.width)
    return left, top, right, bottom


def _longer(start: int, end: int, length: float, limit: int) -> tuple[int, int]:
    """A span of ``length`` around another, moved to lie from 0 to ``limit``, and cut where it is longer."""
    more = int(length - (end - start))
    start, end = start - more // 2, end + more - more // 2
    if end >= limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, min(end - start, limit)
    return start, end


def _fitted(part: Image, size: ImageSize) -> Image:
    """``part`` as large as it fits into ``size``, in its middle; its edge is repeated outwards."""
    width, height = size.width, size.height
    if width * part.height < height * part.width:
        inner = (width, max(part.height * width // part.width, 1))
    else:
        inner = (max(part.width * height // part.height, 1), height)
    left, top = width // 2 - inner[0] // 2, height // 2 - inner[1] // 2
    rows, columns = (top, height - top - inner[1]), (left, width - left - inner[0])
    pixels = np.asarray(_resized(part, *inner))
    return _picture(np.pad(pixels, (rows, columns, (0, 0))[: pixels.ndim], mode="edge"))


def _cropped(painted: Image, width: int, height: int) -> Image:
    """The inverse of :func:`_fitted`: ``painted`` over (width, height), and what reaches beyond is cut."""
    if width * painted.height > height * painted.width:
        outer = (width, max(painted.height * width // painted.width, height))
    else:
        outer = (max(painted.width * height // painted.height, width), height)
    left, top = outer[0] // 2 - width // 2, outer[1] // 2 - height // 2
    return _resized(painted, *outer).crop((left, top, left + width, top + height))


def _resized(image: Image, width: int, height: int) -> Image:
    from PIL.Image import Resampling

    return image if image.size == (width, height) else image.resize((width, height), Resampling.LANCZOS)


def _picture(pixels: npt.NDArray[np.generic]) -> Image:
    from PIL import Image as Pillow

    return Pillow.fromarray(np.ascontiguousarray(pixels, np.uint8))


def filled(image: UserImage, mask: UserImage) -> UserImage:
    """``image`` with its masked part in the colours around it: more and more blurred further away.

    Both have (H, W) pixels; where nothing that is kept is near, it is black.
    """
    from PIL import ImageFilter

    share = 1 - mask.pixels.astype(np.float32)[..., None] / 255
    kept = np.concatenate([image.pixels * share, 255 * share], axis=-1)
    bands = [_picture(np.round(kept[..., band])) for band in range(4)]
    below = np.zeros_like(kept)
    for deviation, times in _LAYERS:
        blur = ImageFilter.GaussianBlur(deviation)
        layer = np.stack([np.asarray(band.filter(blur), np.float32) for band in bands], axis=-1)
        for _ in range(times):  # premultiplied "over"
            below = layer + below * (1 - layer[..., 3:] / 255)
    colours = 255 * below[..., :3] / np.maximum(below[..., 3:], 1e-6)
    return UserImage(np.round(np.clip(colours, 0, 255)).astype(np.uint8), image.original)
