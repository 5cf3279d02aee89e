"""The text encoder: token ids to the hidden states that condition the UNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sd_convert.architecture import check_text_encoder
from sd_convert.checkpoint import Checkpoint, Config
from sd_convert.component import Component
from sd_convert.metadata import describe, port
from sd_convert.options import ConversionOptions

from .fit import fit_weights
from .instantiate import on_meta_device

if TYPE_CHECKING:
    from torch import nn


def build_text_encoder(checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """CLIP's text model. ``input_ids`` is float32, as apps pass it; the outputs are float32.

    Raises: see :func:`sd_convert.components.build_component`.
    """
    from .modules import TextEncoderPorts

    config = checkpoint.config("text_encoder")
    where = f"{checkpoint.name}/text_encoder"
    check_text_encoder(config, where=f"{where}/config.json")
    model = _instantiate(config, f"{where}/config.json")
    module = TextEncoderPorts(model).eval()
    hidden, length = model.config.hidden_size, model.config.max_position_embeddings
    return Component(
        name="text_encoder",
        module=module,
        inputs=(port("input_ids", (1, length), "float32"),),
        outputs=(
            port("last_hidden_state", (1, length, hidden), "float32"),
            port("pooled_outputs", (1, hidden), "float32"),
        ),
        weights=fit_weights(
            module, checkpoint.weights("text_encoder"), rename=_renaming(module), where=where
        ),
        **describe(checkpoint, options, hidden_size=str(hidden)),
    )


def _instantiate(config: Config, where: str) -> Any:
    """transformers' ``CLIPTextModel`` on the meta device, in float32 whatever the checkpoint was saved in."""
    from transformers import CLIPTextConfig, CLIPTextModel

    known = {key: value for key, value in config.items() if key not in ("dtype", "torch_dtype")}
    return on_meta_device(
        lambda: CLIPTextModel(CLIPTextConfig.from_dict(known, attn_implementation="sdpa")), where=where
    )


def _renaming(module: nn.Module) -> Callable[[str], str | None]:
    """transformers 5 dropped the ``text_model.`` in front of the names; files may be of either kind."""
    prefix = "text_encoder."
    if any(name.startswith("text_encoder.text_model.") for name in module.state_dict()):
        prefix += "text_model."

    def rename(name: str) -> str | None:
        if name.endswith("position_ids"):  # a constant 0, 1, 2, ... that old versions of transformers saved
            return None
        return prefix + name.removeprefix("text_model.")

    return rename
