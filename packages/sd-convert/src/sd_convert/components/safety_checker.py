"""The safety checker: a picture's likeness to concepts that are not to be shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sd_convert.facts import Facts, Section, Sizes
from sd_convert.facts.supported import check_safety_checker

from . import draws
from .architecture import VISION_DEFAULTS, transformer_config
from .instantiate import on_meta_device
from .kind import ComponentKind, Network, Shapes
from .vae import image_shape

if TYPE_CHECKING:
    from torch import nn

_CONCEPTS: Final = 17  # of diffusers' class
_PROJECTION: Final = 512  # transformers' default
_VISION: Final = re.compile(r"^vision_model\.(vision_model\.)?")


def _shapes(facts: Facts, _: Section, sizes: Sizes) -> tuple[Shapes, Shapes]:
    batch, channels, height, width = image_shape(facts, sizes)
    images, side = (batch, height, width, channels), facts.checked_pixels
    inputs = {"clip_input": (batch, channels, side, side), "images": images, "adjustment": (1,)}
    outputs = {
        "filtered_images": images,
        "has_nsfw_concepts": (batch, 1, 1, 1),
        "concept_scores": (batch, _CONCEPTS),
    }
    return inputs, outputs


def _network(_: Facts, config: Section, __: tuple[str, ...]) -> Network:
    from .modules import SafetyCheckerPorts

    module = SafetyCheckerPorts(_instantiate(config))
    return Network(module, _renaming(module))


def _architecture(_: Facts, config: Section) -> dict[str, Any]:
    vision = config.values.get("vision_config")
    values = vision if isinstance(vision, dict) else {}
    projection = config.values.get("projection_dim", _PROJECTION)
    return {**transformer_config(values, VISION_DEFAULTS), "projection_dim": projection}


def _canonical(name: str) -> str | None:
    """The name that transformers 5 has for a tensor; None for a constant that old versions saved."""
    return None if name.endswith("position_ids") else _VISION.sub("vision_model.", name)


def _instantiate(config: Section) -> Any:
    """diffusers' class on the meta device, in float32 whatever the checkpoint was saved in."""
    check_safety_checker(config.values, where=config.where)
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    known = {key: value for key, value in config.values.items() if key not in ("dtype", "torch_dtype")}
    return on_meta_device(
        lambda: StableDiffusionSafetyChecker(CLIPConfig.from_dict(known, attn_implementation="eager")),
        where=config.where,
    )


def _renaming(module: nn.Module) -> Callable[[str], str | None]:
    """transformers 5 dropped the second ``vision_model.`` of the names; files may be of either kind."""
    is_nested = any(name.startswith("checker.vision_model.vision_model.") for name in module.state_dict())
    prefix = "vision_model.vision_model." if is_nested else "vision_model."

    def rename(name: str) -> str | None:
        if name.endswith("position_ids"):  # a constant 0, 1, 2, ... that old versions of transformers saved
            return None
        return "checker." + _VISION.sub(prefix, name)

    return rename


#: diffusers' ``StableDiffusionSafetyChecker``; ``images`` are in [0, 1], of the VAE decoder's size.
SAFETY_CHECKER: Final = ComponentKind(
    name="safety_checker",
    role="safety_checker",
    folder="safety_checker",
    libraries=(
        "torch.export",
        "transformers.models.clip.modeling_clip",
        "diffusers.pipelines.stable_diffusion.safety_checker",
    ),
    shapes=_shapes,
    network=_network,
    descriptions={
        "clip_input": (
            "The normalized image input tensor resized to ({shape[2]}x{shape[3]}) in channels-first (BCHW) "
            "format"
        ),
        "images": "Output of the vae_decoder ({shape[1]}x{shape[2]}) in channels-last (BHWC) format",
        "adjustment": (
            "Bias added to the concept scores to trade off increased recall for reduce precision in the "
            "safety checker classifier"
        ),
        "filtered_images": (
            "Identical to the input `images`. If safety checker detected any sensitive content, the "
            "corresponding image is replaced with a blank image (zeros)"
        ),
        "has_nsfw_concepts": (
            "Indicates whether the safety checker model found any sensitive content in the given image"
        ),
        "concept_scores": (
            "Concept scores are the scores before thresholding at zero yields the `has_nsfw_concepts` "
            "output. These scores can be used to tune the `adjustment` input"
        ),
    },
    architecture=_architecture,
    canonical=lambda _, name: _canonical(name),
    draws={
        "clip_input": draws.clip_input,
        "images": draws.drawn_images,
        "adjustment": draws.zeros,
    },
)
