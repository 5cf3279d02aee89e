"""The picture that steers: from an image file to the array that a ControlNet takes.

Legend: C channels, H W height and width of the picture to draw.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_runtime import read_image

from sd_controlnet.errors import ControlNetError, HintError

if TYPE_CHECKING:
    from PIL.Image import Image

Float: TypeAlias = npt.NDArray[np.float32]


def prepare_conditioning(image: Image, *, height: int, width: int, channels: int = 3) -> Float:
    """``image`` in the layout of the port ``controlnet_cond``.

    Args:
        image: a PIL image of any mode and size (edges, depth, a pose, ...).
        height: of the result, in pixels: that of the picture to draw.
        width: likewise.
        channels: 3, or 1 for adapters that take grey.

    Returns:
        (1, C, height, width), RGB or grey in [0, 1]; the model casts it to its port's dtype.

    Raises:
        ControlNetError: a size below one.
        HintError: numbers whose range is not known.

    Source: diffusers, ``VaeImageProcessor(do_convert_rgb=True, do_normalize=False).preprocess``: Lanczos
        resampling first, conversion to RGB second. It cuts 16 bits off at 255; here they keep their range.
    """
    from PIL import Image as Pillow

    if height < 1 or width < 1:
        raise ControlNetError(f"expected a height and width of at least 1 pixel, got {height} and {width}")
    # PIL's sizes are (width, height), numpy's shapes (height, width).
    resized = in_bytes(image).resize((width, height), Pillow.Resampling.LANCZOS)
    converted = resized.convert("RGB" if channels != 1 else "L")
    pixels = np.asarray(converted, dtype=np.float32).reshape(height, width, -1) / np.float32(255)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def in_bytes(image: Image) -> Image:
    """``image`` with 8 bits a channel: depth maps often have 16."""
    from PIL import Image as Pillow

    if not image.mode.startswith(("I", "F")):
        return image
    numbers = np.nan_to_num(np.asarray(image, dtype=np.float32))
    most = 65535.0 if image.mode.startswith("I") and (image.mode != "I" or numbers.max() > 255) else 255.0
    if image.mode == "F" and numbers.max() <= 1:
        most = 1.0
    if numbers.max() > most:
        raise HintError(
            "expected a hint of 8 or 16 bits, or of numbers up to 1 or 255, got numbers up to "
            f"{numbers.max():g}"
        )
    return Pillow.fromarray(np.round(np.clip(numbers / most, 0, 1) * 255).astype(np.uint8))


def read_hint(path: str | Path) -> Image:
    """The picture in a file.

    Raises:
        sd_runtime.UserImageError: none that Pillow reads, a damaged or far too large one, or an animation.
    """
    return read_image(path, still=True)


def hint_array(
    hint: Image | str | Path | npt.NDArray[Any], *, height: int, width: int, channels: int
) -> Float:
    """``hint`` as a network takes it, (1, C, H, W): pictures are fitted, arrays have to fit.

    An array is (1, C, H, W) or (C, H, W), in [0, 1], or -1 where an inpainting ControlNet is to see nothing.

    Raises:
        HintError: an array of another shape, or with numbers beyond [-1, 1].
    """
    if isinstance(hint, np.ndarray):
        return _checked(hint, (1, channels, height, width))
    if isinstance(hint, str | Path) and Path(hint).suffix.lower() == ".npy":
        return _checked(_mapped(Path(hint)), (1, channels, height, width))
    image = read_hint(hint) if isinstance(hint, str | Path) else hint
    return prepare_conditioning(image, height=height, width=width, channels=channels)


def _mapped(path: Path) -> npt.NDArray[Any]:
    """The array in a file, of which nothing is read before its shape is known; nothing is unpickled."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise HintError(f"{path}: expected an array, got {reason:.200}") from None


def _checked(hint: npt.NDArray[Any], shape: tuple[int, int, int, int]) -> Float:
    if hint.shape not in (shape, shape[1:]) or hint.dtype.kind not in "fiu":
        raise HintError(
            f"expected a hint of numbers of shape {list(shape)}, got {hint.dtype}{list(hint.shape)}"
        )
    numbers: Float = np.asarray(hint, np.float32).reshape(shape)
    if not (np.abs(numbers) <= 1).all():
        raise HintError(
            f"expected a hint with numbers in [0, 1], or -1 for what is to be painted anew, got "
            f"{numbers.min():g} to {numbers.max():g}"
        )
    return numbers


def mask_array(mask: Image | str | Path, *, height: int, width: int) -> Float:
    """How much a network steers at each pixel, (H, W) in [0, 1]: 1 where ``mask`` is white."""
    image = read_hint(mask) if isinstance(mask, str | Path) else mask
    grey: Float = prepare_conditioning(image, height=height, width=width, channels=1)[0, 0]
    return grey


def shrunk(mask: Float, height: int, width: int) -> Float:
    """``mask`` (H, W) at the size of a residual, each cell the mean of what it covers."""
    from PIL import Image as Pillow

    image = Pillow.fromarray(mask, mode=None)
    return np.asarray(image.resize((width, height), Pillow.Resampling.BOX), np.float32)
