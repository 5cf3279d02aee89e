"""What is converted and what is refused, as tables from config keys to the values that are understood.

A key that is missing has diffusers' default, which is always supported. A value outside the table would
change the network in a way that the ports, the runtime or the lowering do not know: it is refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from .errors import UnsupportedArchitectureError

SUPPORTED: Final = "Stable Diffusion 1.x and networks of its shape (2.x)"

_PIPELINES: Final = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
_REQUIRED: Final = ("_class_name", "model_type")
_OTHER_NETWORKS: Final = ("text_encoder_2", "text_encoder_3", "transformer", "prior", "decoder")

_TEXT_ENCODER: Final[Mapping[str, Collection[Any]]] = {
    "model_type": ("clip_text_model",),
    "hidden_act": ("quick_gelu", "gelu"),
}
_UNET: Final[Mapping[str, Collection[Any]]] = {
    "_class_name": ("UNet2DConditionModel",),
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (1, 3),
    "conv_out_kernel": (1, 3),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", None),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
_VAE: Final[Mapping[str, Collection[Any]]] = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu", "swish"),
    "in_channels": (3,),
    "latents_mean": (None,),
    "latents_std": (None,),
    "out_channels": (3,),
}
_BLOCKS: Final[Mapping[str, Collection[str]]] = {
    "UNet2DConditionModel": ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "AutoencoderKL": ("DownEncoderBlock2D", "UpDecoderBlock2D"),
}


def check_pipeline(index: Mapping[str, Any], *, where: str) -> None:
    """Refuse pipelines of another family, by their class or by the networks they list.

    Raises:
        UnsupportedArchitectureError: the key, its value, and what is supported.
    """
    for key in _OTHER_NETWORKS:
        if index.get(key) not in (None, [None, None]):
            raise _unsupported(where, key, index[key], ())
    _check_value(index, "_class_name", _PIPELINES, where)


def check_text_encoder(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse what is no CLIP text model; errors as :func:`check_pipeline`."""
    _check(config, _TEXT_ENCODER, where)


def check_unet(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse UNets with other conditions than time and text; errors as :func:`check_pipeline`."""
    _check(config, _UNET, where)
    _check_blocks(config, where)
    channels = config.get("out_channels", 4)
    if config.get("in_channels", 4) != channels:  # inpainting and depth take more than the latents
        raise _unsupported(where, "in_channels", config.get("in_channels"), (channels,))


def check_text_width(unet: Mapping[str, Any], text_encoder: Mapping[str, Any], *, where: str) -> None:
    """Refuse a UNet that does not take the hidden states as the text encoder gives them."""
    width = text_encoder.get("hidden_size", unet.get("cross_attention_dim"))
    if not isinstance(width, int) or unet.get("cross_attention_dim") != width:
        raise _unsupported(where, "cross_attention_dim", unet.get("cross_attention_dim"), (width,))


def check_vae(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse autoencoders of another kind; errors as :func:`check_pipeline`."""
    _check(config, _VAE, where)
    _check_blocks(config, where)


def check_known_options(config: Mapping[str, Any], known: Collection[str], *, where: str) -> None:
    """Refuse options that the network's class would ignore: the result would be silently wrong."""
    for key, value in config.items():
        if not key.startswith("_") and key not in known and value not in (None, False):
            raise UnsupportedArchitectureError(
                f"{where}: expected options of {config.get('_class_name')}, got {key!r} = {value!r}, "
                f"which it does not have; supported: {SUPPORTED}"
            )


def _check(config: Mapping[str, Any], table: Mapping[str, Collection[Any]], where: str) -> None:
    for key, allowed in table.items():
        if key in config or key in _REQUIRED:
            _check_value(config, key, allowed, where)


def _check_blocks(config: Mapping[str, Any], where: str) -> None:
    allowed = _BLOCKS[config["_class_name"]]
    for key in ("down_block_types", "up_block_types"):
        for block in config.get(key, ()):
            if block not in allowed:
                raise _unsupported(where, key, block, allowed)


def _check_value(config: Mapping[str, Any], key: str, allowed: Collection[Any], where: str) -> None:
    value = config.get(key)
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        raise _unsupported(where, key, value, allowed)


def _unsupported(where: str, key: str, value: Any, allowed: Collection[Any]) -> UnsupportedArchitectureError:
    expected = f"expected {' or '.join(map(repr, allowed))}" if allowed else "expected none"
    return UnsupportedArchitectureError(
        f"{where}: {key}: {expected}, got {value!r:.200}; supported: {SUPPORTED}"
    )
