"""The two halves of the autoencoder; scaling the latents is the runtime's part, by the manifest's numbers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Final

from sd_convert.checkpoint.single_file.vae import is_of_training
from sd_convert.errors import UnsupportedArchitectureError
from sd_convert.facts import Facts, Section, Sizes
from sd_convert.facts.supported import check_known_options, check_vae
from sd_convert.facts.vae import TINY, vae_facts

from . import draws
from .architecture import TINY_VAE_DEFAULTS, VAE_DEFAULTS, VAE_IGNORED, network_config
from .instantiate import on_meta_device
from .kind import ComponentKind, Network, Shapes

_IMAGE_CHANNELS: Final = 3
_ENCODER: Final = ("encoder.", "quant_conv.")
_DECODER: Final = ("decoder.", "post_quant_conv.")
_LIBRARIES: Final = ("torch.export", "diffusers.models.autoencoders.autoencoder_kl")
_OLD_ATTENTION: Final = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)")
_NEW_ATTENTION: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _decoder_shapes(facts: Facts, _: Section, sizes: Sizes) -> tuple[Shapes, Shapes]:
    return {"z": _latent(sizes, facts.vae.channels)}, {"image": image_shape(facts, sizes)}


def _encoder_shapes(facts: Facts, _: Section, sizes: Sizes) -> tuple[Shapes, Shapes]:
    channels = {"latents": 1, "moments": 2}[facts.vae.encodes] * facts.vae.channels
    return {"x": image_shape(facts, sizes)}, {"latent": _latent(sizes, channels)}


def _latent(sizes: Sizes, channels: int) -> tuple[int, int, int, int]:
    return 1, channels, sizes.height, sizes.width


def image_shape(facts: Facts, sizes: Sizes) -> tuple[int, int, int, int]:
    """Of one picture, BCHW."""
    return 1, _IMAGE_CHANNELS, sizes.height * facts.vae.factor, sizes.width * facts.vae.factor


def _decoder(facts: Facts, config: Section, _: tuple[str, ...]) -> Network:
    from .modules import DecoderPorts

    vae = _instantiate(facts.vae.kind, config)
    module = DecoderPorts(getattr(vae, "post_quant_conv", None), vae.decoder)
    return Network(module, _renaming(_ENCODER))


def _encoder(facts: Facts, config: Section, _: tuple[str, ...]) -> Network:
    from .modules import EncoderPorts

    vae = _instantiate(facts.vae.kind, config)
    module = EncoderPorts(vae.encoder, getattr(vae, "quant_conv", None))
    return Network(module, _renaming(_DECODER))


def _instantiate(kind_name: str, config: Section) -> Any:
    """diffusers' ``AutoencoderKL`` or ``AutoencoderTiny`` on the meta device."""
    check_vae(config.values, where=config.where)
    from diffusers import AutoencoderKL, AutoencoderTiny

    kind, values = AutoencoderKL, dict(config.values)
    if kind_name == TINY:  # it saves the decoder's channels under a second name, and ignores that one
        kind, values = AutoencoderTiny, {k: v for k, v in values.items() if k != "block_out_channels"}
    check_known_options(values, inspect.signature(kind.__init__).parameters, where=config.where)
    return on_meta_device(lambda: kind.from_config(values), where=config.where)


def _preview_shapes(facts: Facts, config: Section, sizes: Sizes) -> tuple[Shapes, Shapes]:
    """Those of the decoder in whose place it draws."""
    own, due = vae_facts(config), facts.vae
    for what, got, expected in (
        ("_class_name", own.kind, TINY),
        ("latent_channels", own.channels, due.channels),
        ("pixels for each of the latent's", own.factor, due.factor),
        ("scaling_factor", own.scaling_factor, 1.0),
        ("shift_factor", own.shift_factor, 0.0),
    ):
        if got != expected:
            raise UnsupportedArchitectureError(
                f"{config.where}: expected a tiny VAE (TAESD) of latents as {facts.name} diffuses them, with "
                f"{what} {expected}, got {got}"
            )
    return _decoder_shapes(facts, config, sizes)


def _preview_decoder(_: Facts, config: Section, __: tuple[str, ...]) -> Network:
    from .modules import DecoderPorts

    return Network(DecoderPorts(None, _instantiate(TINY, config).decoder), _renaming(_ENCODER))


def _preview_architecture(_: Facts, config: Section) -> dict[str, Any]:
    own = network_config(config.values, TINY_VAE_DEFAULTS, (*VAE_IGNORED, "block_out_channels"))
    return {"_class_name": TINY, **own}


def _renaming(other_half: tuple[str, ...]) -> Callable[[str], str | None]:
    """Drop the other half's tensors, and what training left; rename the attention of old checkpoints.

    SD 1.5's own is one of them.
    """

    def rename(name: str) -> str | None:
        if name.startswith(other_half) or is_of_training(name):
            return None
        return _OLD_ATTENTION.sub(lambda match: _NEW_ATTENTION[match[1]], name)

    return rename


def _architecture(facts: Facts, config: Section) -> dict[str, Any]:
    is_tiny = facts.vae.kind == TINY
    defaults = TINY_VAE_DEFAULTS if is_tiny else VAE_DEFAULTS
    ignored = (*VAE_IGNORED, *(("block_out_channels",) if is_tiny else ()))
    return {"_class_name": facts.vae.kind, **network_config(config.values, defaults, ignored)}


def _notes(facts: Facts) -> dict[str, str]:
    return {"scaling_factor": str(facts.vae.scaling_factor)}


#: Latents, divided by the scaling factor, to an image in [-1, 1].
VAE_DECODER: Final = ComponentKind(
    name="vae_decoder",
    role="image_decoder",
    folder="vae",
    libraries=_LIBRARIES,
    shapes=_decoder_shapes,
    network=_decoder,
    descriptions={
        "z": "The denoised latent embeddings from the unet model after the last step of reverse diffusion",
        "image": "Generated image normalized to range [-1, 1]",
    },
    draws={"z": draws.latents},
    precision="auto",  # its numbers are known to grow
    notes=_notes,
    architecture=_architecture,
    canonical=lambda _, name: _renaming(_ENCODER)(name),
)

#: Latents as they are diffused to an image in [-1, 1], at little cost: TAESD beside a whole VAE.
PREVIEW_DECODER: Final = ComponentKind(
    name="preview_decoder",
    role="preview_decoder",
    folder="preview_decoder",
    libraries=("torch.export", "diffusers.models.autoencoders.autoencoder_tiny"),
    shapes=_preview_shapes,
    network=_preview_decoder,
    descriptions={
        "z": "The latents of a step of reverse diffusion",
        "image": "What they will look like, normalized to range [-1, 1]",
    },
    precision="auto",
    architecture=_preview_architecture,
    canonical=lambda _, name: _renaming(_ENCODER)(name),
)

#: An image in [-1, 1] to mean and log variance of its latents, or the latents, not yet scaled.
VAE_ENCODER: Final = ComponentKind(
    name="vae_encoder",
    role="image_encoder",
    folder="vae",
    libraries=_LIBRARIES,
    shapes=_encoder_shapes,
    network=_encoder,
    descriptions={
        "x": "The input image to base the initial latents on normalized to range [-1, 1]",
        "latent": "The latent embeddings from the unet model from the input image.",
    },
    draws={"x": draws.image},
    precision="auto",
    notes=_notes,
    architecture=_architecture,
    canonical=lambda _, name: _renaming(_DECODER)(name),
)
