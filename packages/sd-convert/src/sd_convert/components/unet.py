"""The UNet: a noisy sample, its time and the text to what the prediction type says."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

from sd_convert.checkpoint.ip_adapters import MOST_IP_ADAPTERS
from sd_convert.components.metadata import SUMMARY, package_name
from sd_convert.facts import (
    ADAPTER_RESIDUAL,
    IMAGE_SCALE,
    IMAGE_TOKENS,
    RESIDUAL,
    Facts,
    Section,
    Sizes,
    UNetFacts,
)
from sd_convert.facts.supported import check_known_options, check_text_width, check_unet
from sd_convert.families import TIME_ID_COUNTS

from . import draws
from .architecture import UNET_DEFAULTS, UNET_IGNORED, network_config
from .instantiate import on_meta_device
from .ip_adapters import add_ip_adapters, image_tokens, without_ip_adapters
from .kind import ComponentKind, Network, Shapes

#: The converter whose port names, layouts and file names packages follow, for apps that look at the key.
_LAYOUT_VERSION: Final = {"com.github.apple.ml-stable-diffusion.version": "1.1.0"}
_IMAGE_DESCRIPTION: Final = (
    "The image that the picture is to be like, as the IP-Adapter of that number projects it"
)
_DESCRIPTIONS: Final = {
    "sample": "The low resolution latent feature maps being denoised through reverse diffusion",
    "timestep": (
        "A value emitted by the associated scheduler object to condition the model on a given noise schedule"
    ),
    "encoder_hidden_states": (
        "Output embeddings from the associated text_encoder model to condition to generated image on text. "
        "A maximum of 77 tokens (~40 words) are allowed. Longer text is truncated. "
        "Shorter text does not reduce computation."
    ),
    "time_ids": (
        "Additional embeddings that if specified are added to the embeddings that are passed along to the "
        "UNet blocks."
    ),
    "text_embeds": (
        "Additional embeddings from text_encoder_2 that if specified are added to the embeddings that are "
        "passed along to the UNet blocks."
    ),
    "timestep_cond": "The embedded guidance scale that a latent consistency model is conditioned on",
    IMAGE_SCALE: "How strongly each IP-Adapter steers; zeros are none",
    **{f"{IMAGE_TOKENS}{number}": _IMAGE_DESCRIPTION for number in range(MOST_IP_ADAPTERS)},
    "noise_pred": (
        "Same shape and dtype as the `sample` input. "
        "The predicted noise to facilitate the reverse diffusion (denoising) process"
    ),
}


def _shapes(facts: Facts, config: Section, sizes: Sizes) -> tuple[Shapes, Shapes]:
    unet, batch, size = facts.unet, sizes.batch, (sizes.height, sizes.width)
    inputs: dict[str, tuple[int, ...]] = {
        "sample": (batch, unet.task.channels(unet.channels), *size),
        "timestep": (batch,),
        "encoder_hidden_states": (batch, unet.text_width, 1, sizes.tokens),
    }
    if unet.time_ids != "none":
        inputs["time_ids"] = (batch, TIME_ID_COUNTS[unet.time_ids])
        inputs["text_embeds"] = (batch, unet.pooled_width)
    if unet.guidance_width is not None:
        inputs["timestep_cond"] = (batch, unet.guidance_width)
    if sizes.has_residuals:
        for number, residual in enumerate(_residuals(unet, *size)):
            inputs[f"{RESIDUAL}{number}"] = (batch, *residual)
    if sizes.has_adapter_residuals:
        for number, residual in enumerate(_adapter_residuals(unet, config, *size)):
            inputs[f"{ADAPTER_RESIDUAL}{number:02}"] = (batch, *residual)
    if counts := image_tokens(config):
        for number, count in enumerate(counts):
            inputs[f"{IMAGE_TOKENS}{number}"] = (batch, unet.text_width, 1, count)
        inputs[IMAGE_SCALE] = (batch, len(counts))
    return inputs, {"noise_pred": (batch, unet.channels, *size)}


def _residuals(unet: UNetFacts, height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Channels, height and width of what a ControlNet adds: to every skip connection, then to the middle."""
    channels, last = unet.block_channels[0], len(unet.layers) - 1
    yield channels, height, width
    for index, layers in enumerate(unet.layers):
        channels = unet.block_channels[index]
        for _ in range(layers):
            yield channels, height, width
        if index < last:
            height, width = -(-height // 2), -(-width // 2)
            yield channels, height, width
    yield channels, height, width


def _adapter_residuals(
    unet: UNetFacts, config: Section, height: int, width: int
) -> Iterator[tuple[int, int, int]]:
    """Channels, height and width of what a T2I-Adapter adds in each block going down; of SDXL, below too.

    A block with attention takes it before it halves the resolution, one without, afterwards.

    Source: ``UNet2DConditionModel.forward`` in diffusers, ``down_intrablock_additional_residuals``.
    """
    kinds, last = config.items("down_block_types"), len(unet.layers) - 1
    for index, channels in enumerate(unet.block_channels):
        halved = (-(-height // 2), -(-width // 2)) if index < last else (height, width)
        attends = kinds is None or "CrossAttn" in str(kinds[index])
        yield channels, *((height, width) if attends else halved)
        height, width = halved
    if unet.time_ids != "none":
        yield unet.block_channels[-1], height, width


def _network(facts: Facts, config: Section, inputs: tuple[str, ...]) -> Network:
    """diffusers' conditional UNet behind its ports."""
    from .modules import UNetPorts

    check_unet(without_ip_adapters(config.values), where=config.where)
    check_text_width(facts.unet.text_width, facts.text_width, where=config.where)
    unet = _instantiate(Section(config.where, without_ip_adapters(config.values)))
    names = add_ip_adapters(unet, config) if image_tokens(config) else {}
    return Network(UNetPorts(unet, inputs[3:]), lambda name: f"unet.{names.get(name, name)}")


def _instantiate(config: Section) -> Any:
    """diffusers' ``UNet2DConditionModel`` on the meta device."""
    from diffusers import UNet2DConditionModel

    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    check_known_options(config.values, known, where=config.where)
    return on_meta_device(lambda: UNet2DConditionModel.from_config(dict(config.values)), where=config.where)


def _architecture(_: Facts, config: Section) -> dict[str, Any]:
    """Upcast attention is left aside: a program computes in one precision, whatever torch would widen."""
    return {**network_config(config.values, UNET_DEFAULTS, UNET_IGNORED), "upcast_attention": False}


def _package(version: str, sizes: Sizes) -> str:
    """That of a UNet with residuals has a name of its own, as with Apple's converter."""
    return package_name(version, "control-unet" if sizes.has_residuals else "unet")


def _notes(facts: Facts) -> dict[str, str]:
    """What apps read from the UNet's metadata."""
    notes = {
        "prediction_type": facts.prediction_type,
        "hidden_size": str(facts.unet.text_width),
        **_LAYOUT_VERSION,
    }
    if facts.unet.time_ids != "none":
        notes["requires_aesthetics_score"] = str(facts.unet.time_ids == "aesthetic_score").lower()
    return notes


UNET: Final = ComponentKind(
    name="unet",
    role="denoiser",
    folder="unet",
    libraries=("torch.export", "diffusers.models.unets.unet_2d_condition"),
    shapes=_shapes,
    network=_network,
    descriptions=_DESCRIPTIONS,
    draws={
        "sample": draws.noisy_latents,
        "timestep": draws.timesteps,
        "time_ids": draws.time_ids,
        "timestep_cond": draws.embedded_guidance,
        IMAGE_SCALE: draws.shares,
    },
    rewrites_attention=True,
    architecture=_architecture,
    summary=SUMMARY.replace("and/or", "or"),  # the word by which Apple's differs
    notes=_notes,
    package=_package,
)
