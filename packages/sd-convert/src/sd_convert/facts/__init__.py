"""What a checkpoint says, read once into typed values."""

from .read import Facts, read_facts, section
from .section import Section
from .sizes import (
    ADAPTER_RESIDUAL,
    IMAGE_SCALE,
    IMAGE_TOKENS,
    RESIDUAL,
    Sizes,
    chosen_sizes,
    every_size,
    stated_sizes,
)
from .supported import check_known_options, check_values
from .text import TextEncoderFacts
from .unet import UNetFacts, task_of
from .vae import AutoencoderFacts

__all__ = [
    "ADAPTER_RESIDUAL",
    "IMAGE_SCALE",
    "IMAGE_TOKENS",
    "RESIDUAL",
    "AutoencoderFacts",
    "Facts",
    "Section",
    "Sizes",
    "TextEncoderFacts",
    "UNetFacts",
    "check_known_options",
    "check_values",
    "chosen_sizes",
    "every_size",
    "read_facts",
    "section",
    "stated_sizes",
    "task_of",
]
