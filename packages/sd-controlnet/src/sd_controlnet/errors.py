"""What can go wrong when ControlNet's inputs are prepared.

ControlNetError    a size, an image or a list of ports that cannot serve: expected, got
"""

from __future__ import annotations


class ControlNetError(ValueError):
    """Inputs that ControlNet, or a UNet that takes its residuals, cannot work with."""
