"""An IP-Adapter's projection: of what the image encoder sees, to tokens that the UNet attends to.

Source: arXiv 2308.06721 (IP-Adapter); diffusers' ``ImageProjection``, ``IPAdapterPlusImageProjection`` and
``IPAdapterFullImageProjection``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sd_convert import (
    IMAGE_TOKENS,
    ComponentKind,
    Facts,
    Network,
    Section,
    Shapes,
    Sizes,
    on_meta_device,
    portable,
)

from sd_controlnet.errors import BaseModelError

from .image_encoder import EMBEDDING, HIDDEN_STATES, Seen

_PLAIN: Final = "ImageProjection"
_PLUS: Final = "IPAdapterPlusImageProjection"
_SUMMARY: Final = (
    "IP-Adapter lets a diffusion model draw pictures that are like an image. Please refer to "
    "https://arxiv.org/abs/2308.06721 for details."
)


def ip_adapter_kind(name: str) -> ComponentKind:
    """The projection called ``name``, whose config and weights a checkpoint has under the same name."""
    return ComponentKind(
        name=name,
        role="image_projection",
        folder=name,
        libraries=("torch.export", "diffusers.models.embeddings"),
        shapes=_shapes,
        network=_network,
        descriptions={
            EMBEDDING: "The embedding of the image encoder; zeros stand for no image",
            HIDDEN_STATES: "The hidden states of the image encoder; those of a black square, in its "
            "normalisation zeros, stand for no image",
        },
        summary=_SUMMARY,
        identifier=name,
        package=lambda *_: f"IPAdapter_{portable(name)}.mlpackage",
    )


def completed(
    config: Mapping[str, Any], where: str, number: int, *, encoder: Seen, text_width: int
) -> dict[str, Any]:
    """The config of the projection of number ``number`` in a UNet that attends to texts of ``text_width``.

    Raises:
        BaseModelError: it is for another UNet, or for another image encoder than that of those sizes.
    """
    if config["text_width"] != text_width:
        raise BaseModelError(
            f"{where}: expected an IP-Adapter with cross_attention_dim {text_width}, as the UNet has it, got "
            f"one with {config['text_width']}: it was made for another model"
        )
    is_plain = config["_class_name"] == _PLAIN
    due, what = (encoder.projected, EMBEDDING) if is_plain else (encoder.width, HIDDEN_STATES)
    if config["width"] != due:
        raise BaseModelError(
            f"{where}: expected an IP-Adapter for {what} of {due} channels, as the image encoder gives them, "
            f"got one for {config['width']}: it was made beside another image encoder"
        )
    return {"tokens": encoder.states, "states": encoder.states, **config, "number": number}


def _shapes(_: Facts, config: Section, __: Sizes) -> tuple[Shapes, Shapes]:
    text_width = config.count("text_width", 1)
    width, tokens = config.count("width", 1), config.count("tokens", 1)
    is_plain = config.values.get("_class_name") == _PLAIN
    inputs = {EMBEDDING: (1, width)} if is_plain else {HIDDEN_STATES: (1, config.count("states", 1), width)}
    return inputs, {f"{IMAGE_TOKENS}{config.values['number']}": (1, text_width, 1, tokens)}


def _network(_: Facts, config: Section, __: tuple[str, ...]) -> Network:
    """diffusers' projection behind its ports."""
    from .modules import ImageProjectionPorts

    model = on_meta_device(lambda: _instantiate(config), where=config.where)
    return Network(ImageProjectionPorts(model), lambda name: f"projection.{name}")


def _instantiate(config: Section) -> Any:
    from diffusers.models import embeddings

    width, text_width = config.count("width", 1), config.count("text_width", 1)
    kind = config.values.get("_class_name")
    if kind == _PLAIN:
        return embeddings.ImageProjection(width, text_width, config.count("tokens", 1))
    if kind != _PLUS:
        return embeddings.IPAdapterFullImageProjection(width, text_width)
    hidden = config.count("hidden_width", 1)
    return embeddings.IPAdapterPlusImageProjection(
        embed_dims=width,
        output_dims=text_width,
        hidden_dims=hidden,
        depth=config.count("depth", 1),
        heads=config.count("heads", 1),
        num_queries=config.count("tokens", 1),
        ffn_ratio=config.count("ff_width", 1) / hidden,
    )
