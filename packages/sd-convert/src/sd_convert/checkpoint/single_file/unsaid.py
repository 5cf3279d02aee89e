"""What a single file does not say, and is the same in every family."""

from __future__ import annotations

from typing import Any


def vae_standard() -> dict[str, Any]:
    """The config of the VAE that every family has in common, for files without one."""
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
    }


def text_standard(width: int) -> dict[str, Any]:
    """What the UNet's facts need of a text encoder that is not in the file."""
    return {
        "model_type": "clip_text_model",
        "hidden_size": width,
        "projection_dim": width,
        "max_position_embeddings": 77,
    }


def tokenizer_config(pad_token: str, length: int) -> dict[str, Any]:
    """CLIP's ``tokenizer_config.json``: every family has CLIP's vocabulary, and only the padding differs."""
    return {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad_token,
        "model_max_length": length,
    }
