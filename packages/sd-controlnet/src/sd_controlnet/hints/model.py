"""A Core ML model as a preprocessor: a depth, pose or line-art network in any package that sd-mil runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sd_controlnet.conditioning import prepare_conditioning
from sd_controlnet.errors import HintError

from .kinds import picture

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_mil import Port

_MODES = {"GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}


def model_hint(image: Image, path: str | Path, *, engine: str = "portable") -> Image:
    """What the model at ``path`` makes of ``image``, in the size of ``image``.

    Its only input is an image, or (1, 1|3, H, W) in [0, 1]; its first output, an image, or numbers
    (..., H, W) or (..., 1|3, H, W), of which the smallest becomes black and the largest white.

    Raises:
        HintError: other inputs or outputs.
        sd_mil.SdMilError: no model that the engine runs.
    """
    from sd_mil import MLModel

    model = MLModel(Path(path), engine)
    ports = list(model.inputs.values())
    if len(ports) != 1:
        raise HintError(
            f"{path}: expected a model with one input, got {', '.join(port.name for port in ports)}"
        )
    (port,) = ports
    result = next(iter(model.predict({port.name: _given(image, port, path)}).values()))
    return _shown(result, path).resize(image.size)


def _given(image: Image, port: Port, path: str | Path) -> Any:
    """``image`` for a port that takes an image, or numbers."""
    shape = tuple(port.shape)
    if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, 3):
        raise HintError(f"{path}: expected an input [1, 1 or 3, height, width], got {list(shape)}")
    height, width = shape[2] or image.height, shape[3] or image.width
    if port.color is not None:
        return image.convert(_MODES.get(str(port.color), "RGB")).resize((width, height))
    hint = prepare_conditioning(image, height=height, width=width, channels=shape[1])
    return hint.astype(port.dtype)


def _shown(result: Any, path: str | Path) -> Image:
    if not isinstance(result, np.ndarray) and hasattr(result, "convert"):
        return _shown(np.asarray(result), path) if result.mode == "F" else result.convert("RGB")
    numbers: npt.NDArray[np.float64] = np.squeeze(np.asarray(result, np.float64))
    if numbers.ndim == 3 and numbers.shape[0] == 3:
        numbers = np.moveaxis(numbers, 0, -1)
    if numbers.ndim != 2 and numbers.shape[2:] != (3,):
        raise HintError(f"{path}: expected a picture as its output, got numbers of shape {np.shape(result)}")
    if not np.isfinite(numbers).all():
        raise HintError(f"{path}: expected finite numbers as its output, got NaN or infinity")
    low, high = float(numbers.min()), float(numbers.max())
    unit = (numbers - low) / (high - low) if high > low else np.zeros_like(numbers)
    return picture(np.round(unit * 255).astype(np.uint8))
