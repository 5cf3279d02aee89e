"""Hints from pictures, without torch; filters are OpenCV's, from ``sd-controlnet[hints]``.

What a trained preprocessor sees (depth, poses, line art by a network) comes from any Core ML model instead.
"""

from .kinds import HINTS, HintKind, make_hint
from .model import model_hint

__all__ = ["HINTS", "HintKind", "make_hint", "model_hint"]
