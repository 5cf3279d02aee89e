"""The UNet: a noisy sample, its time and the text to what the prediction type says."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sd_convert.architecture import check_known_options, check_text_width, check_unet
from sd_convert.checkpoint import Checkpoint, Config
from sd_convert.component import Component, PortSpec
from sd_convert.facts import (
    guidance_width,
    latent_size,
    pooled_width,
    prediction_type,
    text_tokens,
    text_widths,
    time_ids_of,
    unet_text_width,
)
from sd_convert.metadata import LAYOUT_VERSION, RESIDUAL, describe, port
from sd_convert.options import ConversionOptions

from .fit import fit_weights
from .instantiate import on_meta_device

if TYPE_CHECKING:
    from torch import nn

#: Classifier-free guidance runs the UNet on the negative and the positive prompt at once.
BATCH = 2


def build_unet(checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """diffusers' conditional UNet.

    Raises: see :func:`sd_convert.components.build_component`.
    """
    config = checkpoint.config("unet")
    where = f"{checkpoint.name}/unet"
    check_unet(config, where=f"{where}/config.json")
    check_text_width(config, text_widths(checkpoint), where=f"{where}/config.json")
    unet = _instantiate(config, f"{where}/config.json")
    inputs = _inputs(unet, checkpoint, options)
    batch, _, *size = inputs[0].shape
    module = _with_ports(unet, inputs)
    return Component(
        name="unet",
        module=module,
        inputs=inputs,
        outputs=(port("noise_pred", (batch, int(config.get("out_channels", 4)), *size), "float32"),),
        weights=fit_weights(
            module, checkpoint.weights("unet"), rename=lambda name: f"unet.{name}", where=where
        ),
        **describe(checkpoint, options, joint="or", **_facts(checkpoint)),
    )


def _facts(checkpoint: Checkpoint) -> dict[str, str]:
    """What apps read from the UNet's metadata."""
    facts = {
        "prediction_type": prediction_type(checkpoint),
        "hidden_size": str(unet_text_width(checkpoint)),
        **LAYOUT_VERSION,
    }
    time_ids = time_ids_of(checkpoint)
    if time_ids != "none":
        facts["requires_aesthetics_score"] = str(time_ids == "aesthetic_score").lower()
    return facts


def _instantiate(config: Config, where: str) -> Any:
    """diffusers' ``UNet2DConditionModel`` on the meta device."""
    from diffusers import UNet2DConditionModel

    check_known_options(config, inspect.signature(UNet2DConditionModel.__init__).parameters, where=where)
    return on_meta_device(lambda: UNet2DConditionModel.from_config(dict(config)), where=where)


def _inputs(unet: Any, checkpoint: Checkpoint, options: ConversionOptions) -> tuple[PortSpec, ...]:
    """The ports, in the order in which the module takes them."""
    batch = 1 if options.unet_batch_one else BATCH
    height, width = latent_size(checkpoint, options)
    shapes: dict[str, tuple[int, ...]] = {
        "sample": (batch, int(unet.config.in_channels), height, width),
        "timestep": (batch,),
        "encoder_hidden_states": (
            batch,
            unet_text_width(checkpoint),
            1,
            text_tokens(checkpoint, options),
        ),
    }
    time_ids, guidance = time_ids_of(checkpoint), guidance_width(checkpoint)
    if time_ids != "none":
        shapes["time_ids"] = (batch, 6 if time_ids == "size" else 5)
        shapes["text_embeds"] = (batch, pooled_width(checkpoint))
    if guidance is not None:
        shapes["timestep_cond"] = (batch, guidance)
    if options.unet_support_controlnet:
        for number, (channels, *size) in enumerate(_residuals(unet, height, width)):
            shapes[f"{RESIDUAL}{number}"] = (batch, channels, *size)
    return tuple(port(name, shape, "float16") for name, shape in shapes.items())


def _residuals(unet: Any, height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Channels, height and width of what a ControlNet adds: to every skip connection, then to the middle."""
    channels: int = unet.conv_in.out_channels
    yield channels, height, width
    for block in unet.down_blocks:
        channels = block.resnets[-1].out_channels
        for _ in block.resnets:
            yield channels, height, width
        if block.downsamplers:
            height, width = -(-height // 2), -(-width // 2)
            yield channels, height, width
    yield channels, height, width


def _with_ports(unet: Any, inputs: tuple[PortSpec, ...]) -> nn.Module:
    from .modules import UNetPorts

    return UNetPorts(unet, [port.name for port in inputs[3:]]).eval()
