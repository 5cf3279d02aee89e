"""What is converted and what is refused, as tables from config keys to the values that are understood.

A key that is missing has diffusers' default, which is always supported. A value outside the table would
change the network in a way that the ports, the runtime or the lowering do not know: it is refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sd_convert.errors import UnsupportedArchitectureError

SUPPORTED: Final = "Stable Diffusion 1, 2 and XL, and networks of their shape"

_PIPELINES: Final = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline",
    "LatentConsistencyModelPipeline",
    "LatentConsistencyModelImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLInstructPix2PixPipeline",
)
_REQUIRED: Final = ("_class_name", "model_type")
_OTHER_NETWORKS: Final = ("text_encoder_3", "transformer", "prior", "decoder", "depth_estimator")
_ACTIVATIONS: Final = ("silu", "swish", "mish", "gelu", "relu")

_TEXT_ENCODER: Final[Mapping[str, Collection[Any]]] = {
    "model_type": ("clip_text_model",),
    "hidden_act": ("quick_gelu", "gelu"),
}
_SAFETY_CHECKER: Final[Mapping[str, Collection[Any]]] = {"model_type": ("clip",)}
_UNET: Final[Mapping[str, Collection[Any]]] = {
    "_class_name": ("UNet2DConditionModel",),
    "act_fn": _ACTIVATIONS,
    "addition_embed_type": (None, "text_time"),
    "attention_type": ("default",),
    "center_input_sample": (False, True),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim_type": (None, "text_proj"),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "time_embedding_act_fn": (None, *_ACTIVATIONS),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None, *_ACTIVATIONS),
}
_VAE: Final[Mapping[str, Collection[Any]]] = {
    "_class_name": ("AutoencoderKL", "AutoencoderTiny"),
    "act_fn": _ACTIVATIONS,
    "in_channels": (3,),
    "latents_mean": (None,),
    "latents_std": (None,),
    "out_channels": (3,),
    "upsample_fn": ("nearest",),
    "upsampling_scaling_factor": (2,),
}
_BLOCKS: Final[Mapping[str, Collection[str]]] = {
    "UNet2DConditionModel": (
        "CrossAttnDownBlock2D",
        "DownBlock2D",
        "ResnetDownsampleBlock2D",
        "CrossAttnUpBlock2D",
        "UpBlock2D",
        "ResnetUpsampleBlock2D",
    ),
    "AutoencoderKL": (
        "DownEncoderBlock2D",
        "AttnDownEncoderBlock2D",
        "UpDecoderBlock2D",
        "AttnUpDecoderBlock2D",
    ),
    "AutoencoderTiny": (),
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
    check_values(config, _TEXT_ENCODER, where)


def check_safety_checker(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse what is no CLIP model; errors as :func:`check_pipeline`."""
    check_values(config, _SAFETY_CHECKER, where)


def check_unet(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse UNets with other inputs than are known; errors as :func:`check_pipeline`."""
    check_values(config, _UNET, where)
    _check_blocks(config, where)


def check_text_width(width: int, expected: int | None, *, where: str) -> None:
    """Refuse a UNet that does not take the hidden states as the text encoders, side by side, give them.

    Raises:
        UnsupportedArchitectureError: as :func:`check_pipeline`.
    """
    if expected not in (None, width):
        raise _unsupported(where, "cross_attention_dim", width, (expected,))


def check_vae(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse autoencoders of another kind; errors as :func:`check_pipeline`."""
    check_values(config, _VAE, where)
    _check_blocks(config, where)


#: What diffusers' EMAModel adds to the config of the network that it averaged: nothing about the network.
_NOTES = frozenset(
    {
        "decay",
        "min_decay",
        "optimization_step",
        "update_after_step",
        "use_ema_warmup",
        "inv_gamma",
        "power",
    }
)


def is_note(key: str, value: object) -> bool:
    """Whether a key that the network's class does not have says nothing about the network."""
    return key.startswith("_") or key in _NOTES or value is None or value is False


def check_known_options(config: Mapping[str, Any], known: Collection[str], *, where: str) -> None:
    """Refuse options that the network's class would ignore: the result would be silently wrong."""
    for key, value in config.items():
        if key not in known and not is_note(key, value):
            raise UnsupportedArchitectureError(
                f"{where}: expected options of {config.get('_class_name')}, got {key!r} = {value!r}, "
                f"which it does not have; supported: {SUPPORTED}"
            )


def check_values(config: Mapping[str, Any], table: Mapping[str, Collection[Any]], where: str) -> None:
    """Refuse values that ``table`` does not list for their key; ``_class_name`` in it has to be there.

    Raises:
        UnsupportedArchitectureError: as :func:`check_pipeline`.
    """
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
