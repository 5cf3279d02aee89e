"""What a checkpoint says, read once into typed values."""

from .read import Facts, read_facts, section
from .section import Section
from .sizes import RESIDUAL, Sizes, chosen_sizes, stated_sizes
from .text import TextEncoderFacts
from .unet import UNetFacts, task_of
from .vae import AutoencoderFacts

__all__ = [
    "RESIDUAL",
    "AutoencoderFacts",
    "Facts",
    "Section",
    "Sizes",
    "TextEncoderFacts",
    "UNetFacts",
    "chosen_sizes",
    "read_facts",
    "section",
    "stated_sizes",
    "task_of",
]
