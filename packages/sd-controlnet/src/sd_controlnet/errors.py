"""What can go wrong between a ControlNet, its hint and a UNet.

ControlNetError          a size, an image, a number or a list of ports that cannot serve: expected, got
├── BaseModelError       a ControlNet or adapter that was made for another model: the dimensions
└── HintError            a hint that cannot be made, read or used
"""

from __future__ import annotations


class ControlNetError(ValueError):
    """Inputs that ControlNet, or a UNet that takes its residuals, cannot work with."""


class BaseModelError(ControlNetError):
    """A ControlNet or adapter of another base model."""


class HintError(ControlNetError):
    """A hint that cannot be made, read or used."""
