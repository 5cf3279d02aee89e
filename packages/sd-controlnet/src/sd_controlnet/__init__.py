"""ControlNet conditioning for sd-runtime."""

from sd_runtime import Port

from sd_controlnet.conditioning import prepare_conditioning
from sd_controlnet.errors import ControlNetError
from sd_controlnet.residuals import zero_residuals

__all__ = ["ControlNetError", "Port", "prepare_conditioning", "zero_residuals"]
