"""The text encoders: token ids to the hidden states that condition the UNet."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sd_convert.facts import Facts, Section, Sizes, TextEncoderFacts
from sd_convert.facts.supported import check_text_encoder

from . import draws
from .architecture import TEXT_DEFAULTS, transformer_config
from .instantiate import on_meta_device
from .kind import ComponentKind, Network, Shapes

if TYPE_CHECKING:
    from torch import nn

_PROJECTION: Final = "text_projection.weight"
_LAYER: Final = re.compile(r"(?:text_model\.)?encoder\.layers\.([0-9]{1,4})\.")
_DESCRIPTIONS: Final = {
    "input_ids": "The token ids that represent the input text",
    "last_hidden_state": "The token embeddings as encoded by the Transformer model",
    "hidden_embeds": "Hidden states after the encoder layers",
    "pooled_outputs": "The version of the `last_hidden_state` output after pooling",
}


def _kind(name: str) -> ComponentKind:
    """CLIP's text model; ``input_ids`` is float32, as apps pass it, like the outputs."""
    return ComponentKind(
        name=name,
        role="text_encoder",
        folder=name,
        libraries=("torch.export", "transformers.models.clip.modeling_clip"),
        shapes=partial(_shapes, name),
        network=partial(_network, name),
        descriptions=_DESCRIPTIONS,
        draws={"input_ids": partial(draws.prompt, encoder=name)},
        inputs_as="float32",
        notes=lambda facts: {"hidden_size": str(facts.text_encoder(name).width)},
        architecture=partial(_architecture, name),
        canonical=partial(_canonical, name),
    )


def _shapes(name: str, facts: Facts, _: Section, sizes: Sizes) -> tuple[Shapes, Shapes]:
    encoder = facts.text_encoder(name)
    length = min(sizes.tokens, encoder.tokens)
    outputs = {
        facts.family.hidden_states: (1, length, encoder.width),
        "pooled_outputs": (1, encoder.pooled_width),
    }
    return {"input_ids": (1, length)}, outputs


def _network(name: str, facts: Facts, config: Section, _: tuple[str, ...]) -> Network:
    from .modules import PenultimatePorts, TextEncoderPorts

    encoder = facts.text_encoder(name)
    check_text_encoder(config.values, where=config.where)
    ports = {"hidden_embeds": PenultimatePorts, "last_hidden_state": TextEncoderPorts}
    module = ports[facts.family.hidden_states](_instantiate(encoder, config))
    return Network(module, _renaming(module, encoder.layers))


def _architecture(name: str, facts: Facts, config: Section) -> dict[str, Any]:
    """Without the projection's size where the network has none."""
    known, is_projected = (
        transformer_config(config.values, TEXT_DEFAULTS),
        facts.text_encoder(name).is_projected,
    )
    return {**known, "projection_dim": known["projection_dim"] if is_projected else None}


def _canonical(encoder: str, facts: Facts, name: str) -> str | None:
    """The name that transformers 5 has for a tensor; None for what the network does not have."""
    known = facts.text_encoder(encoder)
    layer = _LAYER.match(name)
    if (layer and int(layer[1]) >= known.layers) or name.endswith("position_ids"):
        return None
    return None if name == _PROJECTION and not known.is_projected else name.removeprefix("text_model.")


def _instantiate(encoder: TextEncoderFacts, config: Section) -> Any:
    """transformers' class on the meta device, in float32 whatever the checkpoint was saved in."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    known = {key: value for key, value in config.values.items() if key not in ("dtype", "torch_dtype")}
    kind = CLIPTextModelWithProjection if encoder.is_projected else CLIPTextModel
    return on_meta_device(
        lambda: kind(CLIPTextConfig.from_dict(known, attn_implementation="sdpa")), where=config.where
    )


def _renaming(module: nn.Module, layers: int) -> Callable[[str], str | None]:
    """transformers 5 dropped the ``text_model.`` in front of the names; files may be of either kind."""
    known = set(module.state_dict())
    prefix = "text_encoder."
    if any(name.startswith("text_encoder.text_model.") for name in known):
        prefix += "text_model."

    def rename(name: str) -> str | None:
        layer = _LAYER.match(name)
        if layer and int(layer[1]) >= layers:  # of a config that skips the last layers; transformers does so
            return None
        if name.endswith("position_ids"):  # a constant 0, 1, 2, ... that old versions of transformers saved
            return None
        if name == _PROJECTION:  # some files have one for a model that does not use it
            return f"text_encoder.{name}" if f"text_encoder.{name}" in known else None
        return prefix + name.removeprefix("text_model.")

    return rename


TEXT_ENCODER: Final = _kind("text_encoder")
#: SDXL's second one, whose pooled output is projected.
TEXT_ENCODER_2: Final = _kind("text_encoder_2")
