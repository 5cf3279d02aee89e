"""Pictures to the tensors that a program sees, and back.

A program takes and gives ``[1, C, H, W]`` with values from 0 to 255; scale and bias are operations of its
own. Pillow is imported when a picture comes out, and not before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from sd_mil.errors import MissingEngineError, PredictionError, load_error
from sd_mil.ir.ports import Port

Array = npt.NDArray[Any]

#: Pillow's modes of the pictures that a port takes; an alpha channel is dropped.
_MODES = {
    "RGB": ("RGB", "RGBA"),
    "BGR": ("RGB", "RGBA"),
    "GRAYSCALE": ("L",),
    "GRAYSCALE_FLOAT16": ("F",),
}


def image_tensor(image: object, port: Port) -> Array:
    """``[1, C, H, W]`` in the port's dtype and order of colours.

    ``image`` is a Pillow image (RGB, for BGR ports too; L or F for grey ones), an array ``H x W x 3`` or
    ``H x W`` of its pixels (uint8; float32 for GRAYSCALE_FLOAT16), or the tensor itself.

    Raises:
        PredictionError: something else, or a size that the port does not take.
    """
    if isinstance(image, np.ndarray) and image.ndim == 4:
        tensor: Array = image
        if tensor.dtype != port.dtype:
            raise _misfit(port, f"a tensor of {tensor.dtype}")
    else:
        tensor = _planes(_pixels(image, port), port)
    if not port.allows(tensor.shape):
        raise _misfit(port, f"one of {tensor.shape[-1]}x{tensor.shape[-2]} pixels; resize it")
    return tensor


def _pixels(image: object, port: Port) -> Array:
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        if image.mode not in _MODES[str(port.color)]:
            wanted = _MODES[str(port.color)][0]
            raise _misfit(port, f"a picture of mode {image.mode!r}; convert it with .convert({wanted!r})")
        return np.asarray(image)
    if not isinstance(image, np.ndarray):
        raise _misfit(port, f"{type(image).__name__}; give a Pillow image or an array of pixels")
    return image


def _planes(pixels: Array, port: Port) -> Array:
    dtype, rank = ("float32" if port.color == "GRAYSCALE_FLOAT16" else "uint8"), pixels.ndim
    channels = 1 if port.shape[1] == 1 else 3
    if pixels.dtype != dtype or rank != (2 if channels == 1 else 3) or (rank == 3 and pixels.shape[2] < 3):
        raise _misfit(port, f"pixels {pixels.dtype}{list(pixels.shape)}")
    if channels == 1:
        return pixels[None, None].astype(port.dtype)
    ordered = pixels[..., 2::-1] if port.color == "BGR" else pixels[..., :3]
    return np.ascontiguousarray(ordered.transpose(2, 0, 1))[None].astype(port.dtype)


def tensor_image(tensor: Array, port: Port) -> Any:
    """The Pillow image that Core ML gives: RGBA, L, or F for GRAYSCALE_FLOAT16; values are rounded to 0..255.

    Raises:
        MissingEngineError: Pillow is not installed.
        EngineError: it is, and does not load.
    """
    pillow = _import_pillow()
    if port.color == "GRAYSCALE_FLOAT16":
        with np.errstate(over="ignore"):
            return pillow.fromarray(tensor[0, 0].astype(np.float16).astype(np.float32))
    with np.errstate(invalid="ignore"):
        pixels = np.clip(np.rint(np.nan_to_num(tensor[0].astype(np.float32))), 0, 255).astype(np.uint8)
    if port.color == "GRAYSCALE":
        return pillow.fromarray(pixels[0])
    ordered = pixels[::-1] if port.color == "BGR" else pixels
    opaque = np.full_like(pixels[:1], 255)
    return pillow.fromarray(np.ascontiguousarray(np.concatenate([ordered, opaque]).transpose(1, 2, 0)))


def _import_pillow() -> ModuleType:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingEngineError("an image output needs Pillow: pip install Pillow") from error
    except ImportError as error:
        raise load_error("Pillow", error) from error
    return Image


def _misfit(port: Port, got: str) -> PredictionError:
    return PredictionError(f"expected {port.expected}, got {got} for input {port.name!r}")
