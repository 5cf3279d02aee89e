"""The one place where OpenCV is imported."""

from __future__ import annotations

from types import ModuleType

from sd_controlnet.errors import HintError


def opencv() -> ModuleType:
    """OpenCV, which the extra brings.

    Raises:
        HintError: it is not installed; with the command that does it.
    """
    try:
        import cv2
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise HintError(
            f"expected OpenCV for hints, got {reason:.100}: pip install 'sd-controlnet[hints]'"
        ) from None
    return cv2
