"""ControlNets and adapters for sd-runtime: hints, strengths and schedules; several at once."""

from sd_runtime import Port

from sd_controlnet.conditioning import hint_array, prepare_conditioning, read_hint
from sd_controlnet.control import MOST_SCALE, Control
from sd_controlnet.errors import BaseModelError, ControlNetError, HintError
from sd_controlnet.hints import HINTS, make_hint, model_hint
from sd_controlnet.image_prompt import ImagePrompt
from sd_controlnet.residuals import zero_residuals
from sd_controlnet.steering import Steering

__all__ = [
    "HINTS",
    "MOST_SCALE",
    "BaseModelError",
    "Control",
    "ControlNetError",
    "HintError",
    "ImagePrompt",
    "Port",
    "Steering",
    "hint_array",
    "make_hint",
    "model_hint",
    "prepare_conditioning",
    "read_hint",
    "zero_residuals",
]
