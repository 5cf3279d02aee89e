"""The safety checker: a picture's likeness to concepts that are not to be shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sd_convert.architecture import check_safety_checker
from sd_convert.checkpoint import Checkpoint, Config
from sd_convert.component import Component
from sd_convert.facts import latent_size, vae_factor
from sd_convert.metadata import describe, port
from sd_convert.options import ConversionOptions

from .fit import fit_weights
from .instantiate import on_meta_device

if TYPE_CHECKING:
    from torch import nn

_IMAGE_CHANNELS: Final = 3
_VISION: Final = re.compile(r"^vision_model\.(vision_model\.)?")


def build_safety_checker(checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """diffusers' ``StableDiffusionSafetyChecker``; ``images`` are in [0, 1], of the VAE decoder's size.

    Raises: see :func:`sd_convert.components.build_component`.
    """
    from .modules import SafetyCheckerPorts

    where = f"{checkpoint.name}/safety_checker"
    checker = _instantiate(checkpoint.config("safety_checker"), f"{where}/config.json")
    module = SafetyCheckerPorts(checker).eval()
    height, width = (size * vae_factor(checkpoint) for size in latent_size(checkpoint, options))
    images = (1, height, width, _IMAGE_CHANNELS)
    side = checker.config.vision_config.image_size
    return Component(
        name="safety_checker",
        module=module,
        inputs=(
            port("clip_input", (1, _IMAGE_CHANNELS, side, side), "float16"),
            port("images", images, "float16"),
            port("adjustment", (1,), "float16"),
        ),
        outputs=(
            port("filtered_images", images, "float32"),
            port("has_nsfw_concepts", (1, 1, 1, 1), "float32"),
            port("concept_scores", (1, checker.concept_embeds.shape[0]), "float32"),
        ),
        weights=fit_weights(
            module, checkpoint.weights("safety_checker"), rename=_renaming(module), where=where
        ),
        **describe(checkpoint, options),
    )


def _instantiate(config: Config, where: str) -> Any:
    """diffusers' class on the meta device, in float32 whatever the checkpoint was saved in."""
    check_safety_checker(config, where=where)
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    known = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    return on_meta_device(
        lambda: StableDiffusionSafetyChecker(CLIPConfig.from_dict(known, attn_implementation="eager")),
        where=where,
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
