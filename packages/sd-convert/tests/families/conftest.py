"""Tiny random checkpoints of every family, made by diffusers and transformers themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, PNDMScheduler, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import nn
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

WIDTH = 32


def tiny_unet(**config: Any) -> UNet2DConditionModel:
    """Two blocks of SD 1.x's kind unless ``config`` says otherwise."""
    defaults: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    }
    return UNet2DConditionModel(**defaults | config)


def tiny_xl_unet(time_ids: int = 6, **config: Any) -> UNet2DConditionModel:
    """SDXL's kind: the first block without attention, sizes and the pooled text beside the prompt."""
    defaults = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2],
        "use_linear_projection": True,
        "attention_head_dim": [2, 4],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 8 * time_ids,
        "cross_attention_dim": 2 * WIDTH,
    }
    return tiny_unet(**defaults | config)


def tiny_text(*, projected: bool = False, **config: Any) -> nn.Module:
    """CLIP with three layers; with a projection to 24 channels if asked for."""
    defaults: dict[str, Any] = {
        "vocab_size": 190,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_act": "quick_gelu",
        "bos_token_id": 188,
        "eos_token_id": 189,
        "pad_token_id": 189,
        "projection_dim": 24,
    }
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return kind(CLIPTextConfig(**defaults | config))


def tiny_vae(**config: Any) -> AutoencoderKL:
    """Two blocks, half the size."""
    defaults: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "sample_size": 16,
    }
    return AutoencoderKL(**defaults | config)


def tiny_taesd(**config: Any) -> AutoencoderTiny:
    """TAESD's kind with two stages."""
    defaults: dict[str, Any] = {
        "encoder_block_out_channels": (16, 16),
        "decoder_block_out_channels": (16, 16),
        "num_encoder_blocks": (1, 2),
        "num_decoder_blocks": (2, 1),
    }
    return AutoencoderTiny(**defaults | config)


def tiny_safety_checker() -> StableDiffusionSafetyChecker:
    """CLIP's vision model with two layers; the concepts' thresholds are such that some are met."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 4}
    vision = {**sizes, "num_hidden_layers": 2, "image_size": 64, "patch_size": 16}
    text = {**sizes, "num_hidden_layers": 1, "vocab_size": 190, "eos_token_id": 189}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    )
    for name in ("concept_embeds", "special_care_embeds"):
        getattr(checker, name).data = torch.randn(getattr(checker, name).shape)
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        getattr(checker, name).data = 0.5 + 0.1 * torch.randn(getattr(checker, name).shape)
    return checker


def save(folder: Path, networks: Mapping[str, nn.Module], index: Mapping[str, Any]) -> Path:
    """Write ``networks`` by the names of their folders, and the small files of a checkpoint."""
    entries: dict[str, Any] = {}
    for name, network in networks.items():
        network.half().save_pretrained(folder / name, variant="fp16")
        network.float().eval()
        entries[name] = ["a library", type(network).__name__]
        if name.startswith("text_encoder"):
            _save_tokenizer(folder / name.replace("text_encoder", "tokenizer"))
    PNDMScheduler(skip_prk_steps=True).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(entries | dict(index)))
    return folder


def _save_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    letters = [chr(number) for number in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


Make = Callable[..., tuple[Path, Mapping[str, nn.Module]]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``make(unet=..., vae=..., index={...})`` saves a checkpoint: its folder, and the networks."""

    def write(index: Mapping[str, Any] | None = None, **networks: nn.Module) -> tuple[Path, Any]:
        named = {"unet": tiny_unet(), "vae": tiny_vae()} | networks
        pipeline = "StableDiffusionXLPipeline" if "text_encoder_2" in named else "StableDiffusionPipeline"
        return save(tmp_path / "tiny", named, {"_class_name": pipeline} | dict(index or {})), named

    torch.manual_seed(0)
    return write


@pytest.fixture
def tiny_networks() -> Mapping[str, Callable[..., nn.Module]]:
    """The makers of networks by name."""
    return {
        "unet": tiny_unet,
        "xl_unet": tiny_xl_unet,
        "text": tiny_text,
        "vae": tiny_vae,
        "taesd": tiny_taesd,
        "safety_checker": tiny_safety_checker,
    }
