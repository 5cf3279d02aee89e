"""The networks of a checkpoint as components, one file each; torch and its libraries load on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sd_convert.checkpoint import Checkpoint
from sd_convert.component import Component
from sd_convert.options import ConversionOptions

from .text_encoder import build_text_encoder
from .unet import build_unet
from .vae import build_vae_decoder, build_vae_encoder

_BUILDERS: Final[Mapping[str, Callable[[Checkpoint, ConversionOptions], Component]]] = {
    "text_encoder": build_text_encoder,
    "unet": build_unet,
    "vae_decoder": build_vae_decoder,
    "vae_encoder": build_vae_encoder,
}


def build_component(name: str, checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """The component ``name`` on the meta device, with weights that were held against its config.

    Raises:
        CheckpointError: the config or the weights are missing, or contradict each other.
        UnsupportedArchitectureError: the config has a key or value that is not converted.
        OptionsError: a latent size that the network cannot take.
    """
    return _BUILDERS[name](checkpoint, options)


__all__ = ["build_component", "build_text_encoder", "build_unet", "build_vae_decoder", "build_vae_encoder"]
