"""ControlNet conditioning for sd-runtime."""

from sd_controlnet.conditioning import prepare_conditioning
from sd_controlnet.errors import ControlNetError
from sd_controlnet.residuals import Port, zero_residuals

__all__ = ["ControlNetError", "Port", "prepare_conditioning", "zero_residuals"]
