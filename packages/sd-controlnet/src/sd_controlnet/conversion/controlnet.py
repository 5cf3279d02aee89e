"""A ControlNet: the half of a UNet that goes down, which sees a hint beside the noisy latent.

Source: arXiv 2302.05543 (Adding Conditional Control to Text-to-Image Diffusion Models); diffusers'
``ControlNetModel``; ports, descriptions and names of packages as apple/ml-stable-diffusion has them.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sd_convert import (
    RESIDUAL,
    ComponentKind,
    Drawing,
    Facts,
    Network,
    Section,
    Shapes,
    Sizes,
    check_known_options,
    check_values,
    on_meta_device,
    portable,
)

from .base import KINDS, check_base

HINT: Final = "controlnet_cond"
#: Of a union ControlNet: 1 for the kind of hint that it is given, 0 for the others.
KIND_OF_HINT: Final = "control_type"
UNION: Final = "ControlNetUnionModel"
#: Of one for several hints at once: the kind of each, and how strongly each counts.
KINDS_OF_HINTS: Final = "control_type_idx"
SCALES_OF_HINTS: Final = "conditioning_scale"
#: The key that the config of a union ControlNet has beside diffusers': how many hints it is given.
HINTS_KEY: Final = "union_hints"
MOST_HINTS: Final = 8
_SUMMARY: Final = (
    "ControlNet is a neural network structure to control diffusion models by adding extra conditions. "
    "Please refer to https://arxiv.org/abs/2302.05543 for details."
)
_HINT_DESCRIPTION: Final = "An additional input image for ControlNet to condition the generated images."
_KIND_DESCRIPTION: Final = (
    "The kinds of hints, of those that a union ControlNet knows: 1 at its place, else 0."
)
_KINDS_DESCRIPTION: Final = "The kind of each hint: 1 at its place, else 0"
_SCALES_DESCRIPTION: Final = "How strongly each hint counts; 0 leaves it out"
_RESIDUAL_DESCRIPTION: Final = (
    "One of the outputs of each downsampling block in ControlNet. The value added to the corresponding "
    "resnet output in UNet."
)
_MOST_RESIDUALS: Final = 64  # that are described; there are as many as the UNet has skip connections

#: Keys whose other values diffusers' class does not know, or the ports do not have.
_SUPPORTED: Final[Mapping[str, Collection[Any]]] = {
    "_class_name": ("ControlNetModel", UNION),
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
    "encoder_hid_dim_type": (None, "text_proj"),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
}
#: diffusers' defaults
_WIDTHS: Final = (320, 640, 1280, 1280)
_HINT_WIDTHS: Final = (16, 32, 96, 256)
_UNION_HINT_WIDTHS: Final = (48, 96, 192, 384)
_KINDS_OF_HINT: Final = 6
_TEXT_WIDTH: Final = 1280


def controlnet_kind(name: str) -> ComponentKind:
    """The component called ``name``, whose config and weights a checkpoint has under the same name."""
    unet = KINDS["unet"]
    described = {f"{RESIDUAL}{number}": _RESIDUAL_DESCRIPTION for number in range(_MOST_RESIDUALS)}
    return ComponentKind(
        name=name,
        role="controlnet",
        folder=name,
        libraries=("torch.export", "diffusers.models.controlnets.controlnet"),
        shapes=_shapes,
        network=_network,
        descriptions={
            **unet.descriptions,
            **described,
            HINT: _HINT_DESCRIPTION,
            **{f"{HINT}_{number}": _HINT_DESCRIPTION for number in range(1, MOST_HINTS)},
            KIND_OF_HINT: _KIND_DESCRIPTION,
            KINDS_OF_HINTS: _KINDS_DESCRIPTION,
            SCALES_OF_HINTS: _SCALES_DESCRIPTION,
        },
        draws={
            **{port: draw for port, draw in unet.draws.items() if port != "sample"},
            HINT: drawn_hint,
            **{f"{HINT}_{number}": drawn_hint for number in range(1, MOST_HINTS)},
            KIND_OF_HINT: _drawn_kind,
            KINDS_OF_HINTS: _drawn_kinds,
            SCALES_OF_HINTS: _drawn_scales,
        },
        rewrites_attention=True,
        summary=_SUMMARY,
        identifier=name,
        package=lambda *_: f"ControlNet_{portable(name)}.mlpackage",
    )


def _shapes(facts: Facts, config: Section, sizes: Sizes) -> tuple[Shapes, Shapes]:
    """The UNet's inputs with the hint for the extra channels of its task, and the residuals that it takes."""
    check_values(config.values, _SUPPORTED, config.where)
    _check_base(facts, config)
    taken = replace(sizes, has_residuals=True, has_adapter_residuals=False)
    ports, _ = KINDS["unet"].shapes(facts, config, taken)
    hint = (
        sizes.batch,
        config.count("conditioning_channels", 3),
        sizes.height * facts.vae.factor,
        sizes.width * facts.vae.factor,
    )
    inputs = {
        name: shape
        for name, shape in ports.items()
        if name != "timestep_cond" and not name.startswith(RESIDUAL)
    }
    inputs["sample"] = (sizes.batch, facts.unet.channels, sizes.height, sizes.width)
    pooled = bool(config.values.get("global_pool_conditions"))
    outputs = {
        name: (*shape[:2], 1, 1) if pooled else shape
        for name, shape in ports.items()
        if name.startswith(RESIDUAL)
    }
    if _is_union(config):
        inputs |= _kinds_of_hints(config, sizes.batch)
    more = {f"{HINT}_{number}": hint for number in range(1, config.count(HINTS_KEY, 1))}
    return {**inputs, HINT: hint, **more}, outputs


def _kinds_of_hints(config: Section, batch: int) -> dict[str, tuple[int, ...]]:
    kinds, hints = config.count("num_control_type", _KINDS_OF_HINT), config.count(HINTS_KEY, 1)
    several = {KINDS_OF_HINTS: (batch, hints, kinds), SCALES_OF_HINTS: (batch, hints)} if hints > 1 else {}
    return {KIND_OF_HINT: (batch, kinds), **several}


def _is_union(config: Section) -> bool:
    return config.values.get("_class_name") == UNION


def _check_base(facts: Facts, config: Section) -> None:
    widths = config.items("block_out_channels") or _WIDTHS
    usual = _UNION_HINT_WIDTHS if _is_union(config) else _HINT_WIDTHS
    hint_widths = config.items("conditioning_embedding_out_channels") or usual
    text = "cross_attention_dim" if config.values.get("encoder_hid_dim") is None else "encoder_hid_dim"
    unet, takes_sizes = facts.unet, config.values.get("addition_embed_type") == "text_time"
    check_base(
        facts,
        config.where,
        {
            "cross_attention_dim": (config.values.get(text, _TEXT_WIDTH), unet.text_width),
            "block_out_channels": (list(widths), list(unet.block_channels)),
            "layers_per_block": ([config.count("layers_per_block", 2)] * len(widths), list(unet.layers)),
            "in_channels": (config.count("in_channels", 4), unet.channels),
            "time_ids": ("yes" if takes_sizes else "no", "no" if unet.time_ids == "none" else "yes"),
            "hint pixels for each of the latent": (2 ** (len(hint_widths) - 1), facts.vae.factor),
        },
    )


def _network(_: Facts, config: Section, inputs: tuple[str, ...]) -> Network:
    """diffusers' ControlNet behind its ports."""
    from diffusers import ControlNetModel, ControlNetUnionModel

    from .modules import ControlNetPorts, UnionPorts

    is_union = _is_union(config)
    kind: Any = ControlNetUnionModel if is_union else ControlNetModel
    ports: Any = UnionPorts if is_union else ControlNetPorts
    known = inspect.signature(kind.__init__).parameters
    theirs = {key: value for key, value in config.values.items() if key != HINTS_KEY}
    check_known_options(theirs, known, where=config.where)
    order = config.values.get("controlnet_conditioning_channel_order", "rgb")
    values = {**theirs, "controlnet_conditioning_channel_order": "rgb"}
    model = on_meta_device(lambda: kind.from_config(values), where=config.where)
    network: Any = ports(model, inputs, is_bgr=order == "bgr")
    return Network(network, lambda name: f"controlnet.{network.names.get(name, name)}")


def _drawn_kind(drawing: Drawing, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """One of the kinds, for all rows."""
    return np.eye(shape[1])[[drawing.generator.integers(shape[1])] * shape[0]]


def _drawn_kinds(drawing: Drawing, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """One of the kinds for each hint, for all rows."""
    return np.stack([np.eye(shape[2])[drawing.generator.integers(shape[2], size=shape[1])]] * shape[0])


def _drawn_scales(drawing: Drawing, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    return np.stack([drawing.generator.uniform(0.2, 1.2, size=shape[1])] * shape[0])


def drawn_hint(drawing: Drawing, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Patches of colour in [0, 1]."""
    signed: npt.NDArray[Any] = KINDS["vae_encoder"].draws["x"](drawing, shape)
    return np.clip(signed / 2 + 0.5, 0, 1)
