"""Pictures that users give: read with suspicion, turned upright, brought to the model's size.

Legend: H W the model's picture in pixels.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ImageSize

from sd_runtime.errors import UserImageError

if TYPE_CHECKING:
    from PIL.Image import Image

Float: TypeAlias = npt.NDArray[np.float32]

#: What Pillow may open: common formats, whose decoders are written for untrusted files.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
#: Pillow warns, and the filters of warnings are those of all threads.
READING = threading.Lock()

_ROWS = 256  # of a picture that are copied at a time


@dataclass(frozen=True, slots=True)
class UserImage:
    """A picture at the model's size: ``pixels`` are (H, W, 3) or, of a mask, (H, W), 0..255.

    ``original`` is the size that it was given in, (width, height) after turning it upright.
    """

    pixels: npt.NDArray[np.uint8]
    original: tuple[int, int]

    @property
    def sha256(self) -> str:
        """Digest of the pixels: what tells two pictures apart in the settings."""
        return hashlib.sha256(self.pixels.tobytes()).hexdigest()

    def signed(self) -> Float:
        """(1, 3, H, W) in [-1, 1], as image encoders take it."""
        unit = self.pixels.astype(np.float32) / np.float32(255)
        return (2 * unit - 1).transpose(2, 0, 1)[None]

    def repainted(self) -> Float:
        """Of a mask, (1, 1, H, W): 1 where it is white (half or more), which is painted anew; else 0."""
        return (self.pixels.astype(np.float32) / np.float32(255) >= 0.5).astype(np.float32)[None, None]


def read_image(path: str | Path | BinaryIO, *, still: bool = False) -> Image:
    """The picture in a file, whole, upright as its EXIF orientation says.

    ``still``: refuse an animation or a file of several pages, of which only the first would be seen.

    Raises:
        UserImageError: no picture that Pillow reads, one that is cut off, or one of more than
            ``PIL.Image.MAX_IMAGE_PIXELS`` pixels; one that moves.
    """
    from PIL import Image, ImageOps

    name = path if isinstance(path, str | Path) else "the picture"
    try:
        with READING, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if still and getattr(image, "is_animated", False):
                    raise UserImageError("an animation, or several pages")
                image.load()
                return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserImageError(
            f"{name}: expected a picture of at most {Image.MAX_IMAGE_PIXELS} pixels, got a larger one"
        ) from None
    except MemoryError:
        raise UserImageError(f"{name}: expected a picture that fits into memory, got a larger one") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        formats = ", ".join(FORMATS)
        raise UserImageError(
            f"{name}: expected a whole{still * ' still'} picture ({formats}), got {_one_line(error)}"
        ) from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def prepare_image(image: Image | str | Path, size: ImageSize) -> UserImage:
    """``image`` in RGB at ``size``, stretched where its sides have another ratio; clear parts turn white.

    Resized as diffusers' ``VaeImageProcessor`` does: Lanczos. Errors as :func:`read_image`, and
    UserImageError for numbers whose range is not known.
    """
    found = opened(image)
    opaque = _opaque(_in_bytes(found, size), "white")
    rgb = _resized(opaque if opaque.mode == "RGB" else opaque.convert("RGB"), size)
    return UserImage(np.asarray(rgb), found.size)


def prepare_mask(mask: Image | str | Path, size: ImageSize) -> UserImage:
    """``mask`` in grey at ``size``; clear parts count as black, which keeps the picture.

    Errors as :func:`prepare_image`.
    """
    found = opened(mask)
    grey = _resized(_opaque(_in_bytes(found, size), "black"), size).convert("L")
    return UserImage(np.asarray(grey), found.size)


def opened(image: Image | str | Path) -> Image:
    """A picture, or the one in a file. Errors as :func:`read_image`; UserImageError for what is neither."""
    from PIL.Image import Image as Picture

    if isinstance(image, str | Path):
        return read_image(image)
    if not isinstance(image, Picture):
        raise UserImageError(f"expected a PIL image or a file, got {type(image).__name__}")
    return image


def _resized(image: Image, size: ImageSize) -> Image:
    from PIL.Image import Resampling

    wanted = (size.width, size.height)
    return image if image.size == wanted else image.resize(wanted, resample=Resampling.LANCZOS)


def _opaque(image: Image, background: str) -> Image:
    """``image`` in RGB or grey, laid on ``background``: in strips, since a copy takes 4 bytes a pixel."""
    from PIL import Image as Pillow

    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("RGB")
    opaque = Pillow.new("RGB", image.size)
    for top in range(0, image.height, _ROWS):
        box = (0, top, image.width, min(top + _ROWS, image.height))
        layer = image.crop(box).convert("RGBA")
        strip = Pillow.new("RGBA", layer.size, background)
        strip.alpha_composite(layer)
        opaque.paste(strip.convert("RGB"), box)
    return opaque


def _in_bytes(image: Image, size: ImageSize) -> Image:
    """``image`` with 8 bits a channel; one of more bits at ``size``, so that little is computed."""
    from PIL import Image as Pillow

    if not image.mode.startswith(("I", "F")):
        return image
    white = _white(image)
    numbers = np.nan_to_num(np.asarray(_resized(image.convert("F"), size)))
    return Pillow.fromarray(np.round(np.clip(numbers / white, 0, 1) * 255).astype(np.uint8))


def _white(image: Image) -> float:
    """The number that means white: of 16 bits the largest, else 255, as in Pillow and diffusers, or 1."""
    if image.mode.startswith("I;16"):
        return 65535.0
    largest = float(np.max(image.getextrema()))
    if image.mode == "F" and largest <= 1:
        return 1.0
    if not largest <= 255:
        raise UserImageError(
            f"expected a picture of 8 or 16 bits, or numbers up to 1 or 255, got numbers up to {largest:g}: "
            "what is white in it is not known; save it in 8 or 16 bits"
        )
    return 255.0
