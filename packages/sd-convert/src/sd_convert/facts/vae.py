"""What the autoencoder's config says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sd_bundle import Encodes

from .section import Section

# diffusers' own defaults, for configs that leave the key out
_CHANNELS: Final = 4
_BLOCKS: Final = 1
_TINY_BLOCKS: Final = 4
SCALING_FACTOR: Final = 0.18215

TINY: Final = "AutoencoderTiny"


@dataclass(frozen=True, slots=True)
class AutoencoderFacts:
    """``factor``: pixels of the image per pixel of the latents, along each side; ``channels``: of latents.

    ``scaling_factor``: what latents are multiplied by before diffusion, after ``shift_factor`` is taken from
    them; Stable Diffusion 1, 2 and XL have none. ``encodes``: what the encoder returns.
    """

    kind: str
    channels: int
    factor: int
    scaling_factor: float
    shift_factor: float
    encodes: Encodes


def vae_facts(config: Section) -> AutoencoderFacts:
    """``config`` parsed.

    Raises:
        UnsupportedArchitectureError: a number that is none, or halves of different sizes.
    """
    kind = str(config.values.get("_class_name", "AutoencoderKL"))
    is_tiny = kind == TINY
    return AutoencoderFacts(
        kind=kind,
        channels=config.count("latent_channels", _CHANNELS),
        factor=_tiny_factor(config) if is_tiny else _halvings(config, "block_out_channels", _BLOCKS),
        scaling_factor=config.number("scaling_factor", 1.0 if is_tiny else SCALING_FACTOR),
        shift_factor=config.number("shift_factor", 0.0),
        encodes="latents" if is_tiny else "moments",
    )


def _tiny_factor(config: Section) -> int:
    encoder, decoder = (
        _halvings(config, f"{half}_block_out_channels", _TINY_BLOCKS) for half in ("encoder", "decoder")
    )
    if encoder != decoder:
        raise config.unexpected("decoder_block_out_channels", "as many as the encoder's")
    return encoder


def _halvings(config: Section, key: str, default: int) -> int:
    """By how much a VAE with these blocks divides each side: every block but the last halves it."""
    blocks = config.items(key)
    return int(2 ** ((default if blocks is None else len(blocks)) - 1))
