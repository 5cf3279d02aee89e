"""The two halves of the autoencoder; scaling the latents is the runtime's part, by the manifest's numbers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Final

from sd_convert.architecture import check_known_options, check_vae
from sd_convert.checkpoint import Checkpoint
from sd_convert.component import Component
from sd_convert.facts import (
    encodes,
    latent_channels,
    latent_size,
    vae_factor,
    vae_kind,
    vae_scaling_factor,
)
from sd_convert.metadata import describe, port
from sd_convert.options import ConversionOptions
from sd_convert.single_file.vae import is_of_training

from .fit import fit_weights
from .instantiate import on_meta_device

_IMAGE_CHANNELS: Final = 3
_OLD_ATTENTION: Final = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)")
_NEW_ATTENTION: Final = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def build_vae_decoder(checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """Latents, divided by the scaling factor, to an image in [-1, 1].

    Raises: see :func:`sd_convert.components.build_component`.
    """
    from .modules import DecoderPorts

    latent, image = _shapes(checkpoint, options)
    vae = _instantiate(checkpoint)
    module = DecoderPorts(getattr(vae, "post_quant_conv", None), vae.decoder).eval()
    return Component(
        name="vae_decoder",
        module=module,
        inputs=(port("z", latent, "float16"),),
        outputs=(port("image", image, "float32"),),
        weights=fit_weights(
            module,
            checkpoint.weights("vae_decoder"),
            rename=_renaming(("encoder.", "quant_conv.")),
            where=f"{checkpoint.name}/vae",
        ),
        **describe(checkpoint, options, scaling_factor=str(vae_scaling_factor(checkpoint))),
    )


def build_vae_encoder(checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """An image in [-1, 1] to mean and log variance of its latents, or the latents, not yet scaled.

    Raises: see :func:`sd_convert.components.build_component`.
    """
    from .modules import EncoderPorts

    (batch, channels, height, width), image = _shapes(checkpoint, options)
    vae = _instantiate(checkpoint)
    module = EncoderPorts(vae.encoder, getattr(vae, "quant_conv", None)).eval()
    encoded = channels if encodes(checkpoint) == "latents" else 2 * channels
    return Component(
        name="vae_encoder",
        module=module,
        inputs=(port("x", image, "float16"),),
        outputs=(port("latent", (batch, encoded, height, width), "float32"),),
        weights=fit_weights(
            module,
            checkpoint.weights("vae_encoder"),
            rename=_renaming(("decoder.", "post_quant_conv.")),
            where=f"{checkpoint.name}/vae",
        ),
        **describe(checkpoint, options, scaling_factor=str(vae_scaling_factor(checkpoint))),
    )


def _shapes(
    checkpoint: Checkpoint, options: ConversionOptions
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
    """Of the latents and of the image."""
    height, width = latent_size(checkpoint, options)
    factor = vae_factor(checkpoint)
    latent = (1, latent_channels(checkpoint), height, width)
    return latent, (1, _IMAGE_CHANNELS, height * factor, width * factor)


def _instantiate(checkpoint: Checkpoint) -> Any:
    """diffusers' ``AutoencoderKL`` or ``AutoencoderTiny`` on the meta device."""
    config, where = checkpoint.config("vae"), f"{checkpoint.name}/vae/config.json"
    check_vae(config, where=where)
    from diffusers import AutoencoderKL, AutoencoderTiny

    kind = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}[vae_kind(checkpoint)]
    if kind is AutoencoderTiny:  # it saves the decoder's channels under a second name, and ignores that one
        config = {key: value for key, value in config.items() if key != "block_out_channels"}
    check_known_options(config, inspect.signature(kind.__init__).parameters, where=where)
    return on_meta_device(lambda: kind.from_config(dict(config)), where=where)


def _renaming(other_half: tuple[str, ...]) -> Callable[[str], str | None]:
    """Drop the other half's tensors, and what training left; rename the attention of old checkpoints.

    SD 1.5's own is one of them.
    """

    def rename(name: str) -> str | None:
        if name.startswith(other_half) or is_of_training(name):
            return None
        return _OLD_ATTENTION.sub(lambda match: _NEW_ATTENTION[match[1]], name)

    return rename
