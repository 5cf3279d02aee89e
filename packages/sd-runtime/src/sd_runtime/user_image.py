"""Pictures that users give: read with suspicion, turned upright, brought to the model's size.

Legend: H W the model's picture in pixels.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_runtime.bundle import ImageSize
from sd_runtime.errors import UserImageError

if TYPE_CHECKING:
    from PIL.Image import Image

Float: TypeAlias = npt.NDArray[np.float32]

#: What Pillow may open: common formats, whose decoders are written for untrusted files.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_reading = threading.Lock()


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


def read_image(path: str | Path) -> Image:
    """The picture in a file, whole, upright as its EXIF orientation says.

    Raises:
        UserImageError: no picture that Pillow reads, one that is cut off, or one of more than
            ``PIL.Image.MAX_IMAGE_PIXELS`` pixels.
    """
    from PIL import Image, ImageOps

    try:
        with _reading, warnings.catch_warnings():  # whose filters are those of all threads
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserImageError(
            f"{path}: expected a picture of at most {Image.MAX_IMAGE_PIXELS} pixels, got a larger one"
        ) from None
    except MemoryError:
        raise UserImageError(f"{path}: expected a picture that fits into memory, got a larger one") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        formats = ", ".join(FORMATS)
        raise UserImageError(
            f"{path}: expected a whole picture ({formats}), got {_one_line(error)}"
        ) from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def prepare_image(image: Image | str | Path, size: ImageSize) -> UserImage:
    """``image`` in RGB at ``size``, stretched where its sides have another ratio; clear parts turn white.

    Resized as diffusers' ``VaeImageProcessor`` does: Lanczos. Errors as :func:`read_image`.
    """
    found = _opened(image)
    rgb = _resized(_opaque(found, "white").convert("RGB"), size)
    return UserImage(np.asarray(rgb), found.size)


def prepare_mask(mask: Image | str | Path, size: ImageSize) -> UserImage:
    """``mask`` in grey at ``size``; clear parts count as black, which keeps the picture.

    Errors as :func:`read_image`.
    """
    found = _opened(mask)
    grey = _resized(_opaque(found, "black"), size).convert("L")
    return UserImage(np.asarray(grey), found.size)


def _opened(image: Image | str | Path) -> Image:
    return read_image(image) if isinstance(image, str | Path) else image


def _resized(image: Image, size: ImageSize) -> Image:
    from PIL.Image import Resampling

    wanted = (size.width, size.height)
    return image if image.size == wanted else image.resize(wanted, resample=Resampling.LANCZOS)


def _opaque(image: Image, background: str) -> Image:
    """``image`` in RGB or grey, 8 bits a channel, laid on ``background``."""
    from PIL import Image as Pillow

    if image.mode.startswith(("I", "F")):  # 16 bits and more: Pillow would clip, not scale
        return Pillow.fromarray(_to_bytes(np.asarray(image)))
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("RGB")
    layer = image.convert("RGBA")
    opaque = Pillow.new("RGBA", layer.size, background)
    opaque.alpha_composite(layer)
    return opaque.convert("RGB")


def _to_bytes(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Values of unknown range to 0..255: the range of their type, or their own if that is a float's."""
    numbers = np.nan_to_num(values.astype(np.float64))
    top = 65535.0 if values.dtype.kind in "iu" else max(float(numbers.max(initial=0)), 1.0)
    scaled: npt.NDArray[np.uint8] = np.round(np.clip(numbers / top, 0, 1) * 255).astype(np.uint8)
    return scaled
