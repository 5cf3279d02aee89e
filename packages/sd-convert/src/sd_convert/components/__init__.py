"""The networks of a checkpoint as components, one file each; torch and its libraries load on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Final

from sd_convert.checkpoint import Checkpoint
from sd_convert.component import Component
from sd_convert.coreml import import_coremltools
from sd_convert.options import ConversionOptions

from .safety_checker import build_safety_checker
from .text_encoder import build_text_encoder, build_text_encoder_2
from .unet import build_unet
from .vae import build_vae_decoder, build_vae_encoder

_BUILDERS: Final[Mapping[str, Callable[[Checkpoint, ConversionOptions], Component]]] = {
    "text_encoder": build_text_encoder,
    "text_encoder_2": build_text_encoder_2,
    "unet": build_unet,
    "vae_decoder": build_vae_decoder,
    "vae_encoder": build_vae_encoder,
    "safety_checker": build_safety_checker,
}

_DIFFUSERS: Final = (
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_kl",
)
_CLIP: Final = "transformers.models.clip.modeling_clip"
_LIBRARIES: Final[Mapping[str, tuple[str, ...]]] = {
    "text_encoder": ("torch.export", _CLIP),
    "text_encoder_2": ("torch.export", _CLIP),
    "unet": ("torch.export", _DIFFUSERS[0]),
    "vae_decoder": ("torch.export", _DIFFUSERS[1]),
    "vae_encoder": ("torch.export", _DIFFUSERS[1]),
    "safety_checker": ("torch.export", _CLIP, "diffusers.pipelines.stable_diffusion.safety_checker"),
}


def build_component(name: str, checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """The component ``name`` on the meta device, with weights that were held against its config.

    Raises:
        CheckpointError: the config or the weights are missing, or contradict each other.
        UnsupportedArchitectureError: the config has a key or value that is not converted.
        OptionsError: a latent size that the network cannot take.
    """
    return _BUILDERS[name](checkpoint, options)


def load_libraries(components: Iterable[str]) -> None:
    """Import what converting ``components`` needs, so that the first one's time is its own."""
    import_coremltools()
    for library in dict.fromkeys(library for name in components for library in _LIBRARIES[name]):
        import_module(library)


__all__ = [
    "build_component",
    "build_safety_checker",
    "build_text_encoder",
    "build_text_encoder_2",
    "build_unet",
    "build_vae_decoder",
    "build_vae_encoder",
    "load_libraries",
]
