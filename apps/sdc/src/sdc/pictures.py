"""Pictures from users' files as inputs of a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sd_mil import PredictionError

if TYPE_CHECKING:
    from sd_mil import Port


def read_picture(path: Path, port: Port, *, resize: bool) -> Any:
    """A picture for the port, opened as every one that a user gives: common formats, a bounded size, upright.

    Raises:
        PredictionError: it has another size and is not to be resized, or more than 8 bits a channel.
        UserImageError: no picture, a damaged one, or one of too many pixels.
    """
    from PIL.Image import Resampling
    from sd_runtime import read_image

    mode = {"GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}.get(str(port.color), "RGB")
    with quiet_libraries():
        opened = read_image(path)
    if opened.mode.startswith(("I", "F")) and mode != "F":
        raise PredictionError(
            f"expected a picture of 8 bits a channel for input {port.name!r}, got one of mode {opened.mode} "
            f"in {path.name!r}; give its numbers as .npy"
        )
    image = opened.convert(mode)
    height, width = port.shape[-2] or image.height, port.shape[-1] or image.width
    if port.allows((1, 1 if mode != "RGB" else 3, image.height, image.width)):
        return image
    if not resize:
        raise PredictionError(
            f"expected a picture of {width}x{height} pixels for input {port.name!r}, got "
            f"{image.width}x{image.height}; --resize does it"
        )
    return image.resize((width, height), Resampling.LANCZOS)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Let C libraries' own words about a damaged file go nowhere: the error that follows says it."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
