"""The UNet: a noisy sample, its time and the text to what the prediction type says."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from sd_convert.architecture import check_known_options, check_text_width, check_unet
from sd_convert.checkpoint import Checkpoint, Config
from sd_convert.component import Component
from sd_convert.facts import latent_size, prediction_type
from sd_convert.metadata import LAYOUT_VERSION, describe, port
from sd_convert.options import ConversionOptions

from .fit import fit_weights
from .instantiate import on_meta_device

if TYPE_CHECKING:
    from .modules import UNetPorts

#: Classifier-free guidance runs the UNet on the negative and the positive prompt at once.
BATCH = 2
_TOKENS = 77


def build_unet(checkpoint: Checkpoint, options: ConversionOptions) -> Component:
    """diffusers' conditional UNet.

    Raises: see :func:`sd_convert.components.build_component`.
    """
    config = checkpoint.config("unet")
    where = f"{checkpoint.name}/unet"
    check_unet(config, where=f"{where}/config.json")
    text_config = checkpoint.configs.get("text_encoder", {})
    check_text_width(config, text_config, where=f"{where}/config.json")
    module = _instantiate(config, f"{where}/config.json")
    width = int(config["cross_attention_dim"])
    sample = (BATCH, int(config.get("in_channels", 4)), *latent_size(checkpoint, options))
    tokens = text_config.get("max_position_embeddings", _TOKENS)
    metadata = describe(
        checkpoint,
        options,
        joint="or",
        prediction_type=prediction_type(checkpoint),
        hidden_size=str(width),
        **LAYOUT_VERSION,
    )
    return Component(
        name="unet",
        module=module,
        inputs=(
            port("sample", sample, "float16"),
            port("timestep", (BATCH,), "float16"),
            port("encoder_hidden_states", (BATCH, width, 1, tokens), "float16"),
        ),
        outputs=(port("noise_pred", sample, "float32"),),
        weights=fit_weights(
            module, checkpoint.weights("unet"), rename=lambda name: f"unet.{name}", where=where
        ),
        **metadata,
    )


def _instantiate(config: Config, where: str) -> UNetPorts:
    from diffusers import UNet2DConditionModel

    from .modules import UNetPorts

    check_known_options(config, inspect.signature(UNet2DConditionModel.__init__).parameters, where=where)
    unet = on_meta_device(lambda: UNet2DConditionModel.from_config(dict(config)), where=where)
    return UNetPorts(unet).eval()
