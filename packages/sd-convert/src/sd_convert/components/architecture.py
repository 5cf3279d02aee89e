"""What of a config a network follows from, in one form however the config says it.

Programs without weights are kept for an architecture, and used again for every checkpoint that has it: so
keys that are left out get the value that the library gives them, and keys that play no part are dropped.
Source of the defaults: the signatures of the classes in diffusers and transformers; a test compares them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sd_convert.facts.supported import is_note

UNET_DEFAULTS: Final[Mapping[str, Any]] = {
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "only_cross_attention": False,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "num_class_embeds": None,
    "upcast_attention": False,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}
VAE_DEFAULTS: Final[Mapping[str, Any]] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
TINY_VAE_DEFAULTS: Final[Mapping[str, Any]] = {
    "in_channels": 3,
    "out_channels": 3,
    "encoder_block_out_channels": [64] * 4,
    "decoder_block_out_channels": [64] * 4,
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "latent_channels": 4,
    "upsampling_scaling_factor": 2,
    "num_encoder_blocks": [1, 3, 3, 3],
    "num_decoder_blocks": [3, 3, 3, 1],
    "latent_magnitude": 3,
    "latent_shift": 0.5,
}
TEXT_DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
VISION_DEFAULTS: Final[Mapping[str, Any]] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
#: Keys of diffusers' configs that change nothing that is converted: what training needs, what ports say
#: already, and what the runtime does.
UNET_IGNORED: Final = ("sample_size", "dropout")
VAE_IGNORED: Final = (
    "sample_size", "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast"
)  # fmt: skip
#: Keys whose one number stands for as many as there are blocks.
_PER_BLOCK: Final = (
    "only_cross_attention", "layers_per_block", "cross_attention_dim", "transformer_layers_per_block",
    "attention_head_dim",
)  # fmt: skip


def network_config(
    config: Mapping[str, Any], defaults: Mapping[str, Any], ignored: Collection[str] = ()
) -> dict[str, Any]:
    """A config of diffusers' in full, with keys that are none of its class as they are."""
    known = {key: value for key, value in config.items() if key in defaults}
    others = {
        key: value
        for key, value in config.items()
        if key not in (*defaults, *ignored) and not is_note(key, value)
    }
    full = {**defaults, **known}
    blocks = len(full.get("block_out_channels") or ())
    for key in _PER_BLOCK:
        value = full.get(key)
        if isinstance(value, list | tuple) and len(value) == blocks and all(one == value[0] for one in value):
            full[key] = value[0]
    return {**full, **others}


def transformer_config(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config of transformers' that its networks follow from, in full."""
    return {key: config.get(key, default) for key, default in defaults.items()}
