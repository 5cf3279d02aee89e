"""The text encoder: token ids to the hidden states that condition the UNet."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sd_convert.architecture import check_text_encoder
from sd_convert.checkpoint import Checkpoint, Config
from sd_convert.component import Component
from sd_convert.facts import is_sdxl, most_tokens, text_tokens
from sd_convert.metadata import describe, port
from sd_convert.options import ConversionOptions

from .fit import fit_weights
from .instantiate import on_meta_device

if TYPE_CHECKING:
    from torch import nn

_PROJECTION: Final = "text_projection.weight"
_LAYER: Final = re.compile(r"(?:text_model\.)?encoder\.layers\.([0-9]{1,4})\.")


def build_text_encoder(checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """CLIP's text model; of SDXL, the first one. ``input_ids`` is float32, as apps pass it, like the outputs.

    Raises: see :func:`sd_convert.components.build_component`.
    """
    return _build("text_encoder", checkpoint, options)


def build_text_encoder_2(checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """SDXL's second text encoder, whose pooled output is projected.

    Raises: see :func:`sd_convert.components.build_component`.
    """
    return _build("text_encoder_2", checkpoint, options)


def _build(name: str, checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    from .modules import PenultimatePorts, TextEncoderPorts

    config = checkpoint.config(name)
    where = f"{checkpoint.name}/{name}"
    check_text_encoder(config, where=f"{where}/config.json")
    model = _instantiate(config, f"{where}/config.json", is_projected=name == "text_encoder_2")
    module = (PenultimatePorts if is_sdxl(checkpoint) else TextEncoderPorts)(model).eval()
    hidden = model.config.hidden_size
    pooled = model.config.projection_dim if name == "text_encoder_2" else hidden
    length = min(text_tokens(checkpoint, options), most_tokens(checkpoint, name))
    states = "hidden_embeds" if is_sdxl(checkpoint) else "last_hidden_state"
    return Component(
        name=name,
        module=module,
        inputs=(port("input_ids", (1, length), "float32"),),
        outputs=(
            port(states, (1, length, hidden), "float32"),
            port("pooled_outputs", (1, pooled), "float32"),
        ),
        weights=fit_weights(
            module,
            checkpoint.weights(name),
            rename=_renaming(module, model.config.num_hidden_layers),
            where=where,
        ),
        **describe(checkpoint, options, hidden_size=str(hidden)),
    )


def _instantiate(config: Config, where: str, *, is_projected: bool) -> Any:
    """transformers' class on the meta device, in float32 whatever the checkpoint was saved in."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    known = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    kind = CLIPTextModelWithProjection if is_projected else CLIPTextModel
    return on_meta_device(
        lambda: kind(CLIPTextConfig.from_dict(known, attn_implementation="sdpa")), where=where
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
