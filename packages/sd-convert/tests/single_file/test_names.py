"""Every tensor of full-size and tiny networks, to the name and shape that diffusers and transformers have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from sd_convert.checkpoint.single_file.blocks import diffusers_blocks, original_blocks
from sd_convert.checkpoint.single_file.clip import text_config
from sd_convert.checkpoint.single_file.detect import Place
from sd_convert.checkpoint.single_file.source import network_tensors
from sd_convert.checkpoint.single_file.unet import unet_config
from sd_convert.checkpoint.single_file.vae import vae_config
from sd_convert.checkpoint.tensors import TensorEntry
from sd_convert.families import FAMILIES
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "use_linear_projection": True,
}
FULL: dict[str, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "inpainting": {"cross_attention_dim": 768, "attention_head_dim": 8, "in_channels": 9},
    "sd2": {
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "sdxl": SDXL
    | {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": [PLAIN, CROSS, CROSS],
        "up_block_types": [CROSS_UP, CROSS_UP, PLAIN_UP],
        "transformer_layers_per_block": [1, 2, 10],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "projection_class_embeddings_input_dim": 2816,
    },
    "sdxl-refiner": SDXL
    | {
        "block_out_channels": [384, 768, 1536, 1536],
        "down_block_types": [PLAIN, CROSS, CROSS, PLAIN],
        "up_block_types": [PLAIN_UP, CROSS_UP, CROSS_UP, PLAIN_UP],
        "transformer_layers_per_block": 4,
        "cross_attention_dim": 1280,
        "attention_head_dim": [6, 12, 24, 24],
        "projection_class_embeddings_input_dim": 2560,
    },
    "ssd-1b": SDXL
    | {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": [PLAIN, CROSS, CROSS],
        "up_block_types": [CROSS_UP, CROSS_UP, PLAIN_UP],
        "mid_block_type": "UNetMidBlock2D",
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "projection_class_embeddings_input_dim": 2816,
    },
    "bk-sdm-small": {
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "layers_per_block": 1,
        "mid_block_type": None,
    },
    "bk-sdm-tiny": {
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "down_block_types": [CROSS] * 3,
        "up_block_types": [CROSS_UP] * 3,
        "layers_per_block": 1,
        "mid_block_type": None,
    },
    "lcm": {"cross_attention_dim": 768, "attention_head_dim": 8, "time_cond_proj_dim": 256},
}


def meta(build: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        return build()


def entries(state: dict[str, torch.Tensor]) -> dict[str, TensorEntry]:
    """As the header of a file would have them; the data is nowhere."""
    nothing = np.zeros(0, np.uint8)
    return {
        name: TensorEntry("F32", tuple(t.shape), 0, 4 * t.numel(), Path("nowhere"), nothing)
        for name, t in state.items()
    }


def shapes(module_or_tensors: Any) -> dict[str, tuple[int, ...]]:
    state = module_or_tensors if isinstance(module_or_tensors, dict) else module_or_tensors.state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("kind", FULL)
def test_every_tensor_of_a_full_size_unet(kind: str, original: Any) -> None:
    config = FULL[kind]
    unet = meta(lambda: UNet2DConditionModel(**config))
    state = original(unet=unet)
    tensors = network_tensors(entries(state), Place("unet", "model.diffusion_model.", "unet"), where="x")
    assert shapes(tensors) == shapes(unet)
    part = {name.removeprefix("model.diffusion_model."): e for name, e in entries(state).items()}
    found = unet_config(part, where="x")
    family = "sd1" if not found["use_linear_projection"] else "sdxl"
    found["attention_head_dim"] = FAMILIES[family].heads(found["block_out_channels"])
    again = meta(lambda: UNet2DConditionModel.from_config(found))
    assert shapes(again) == shapes(unet)
    defaults = {"in_channels": 4, "mid_block_type": "UNetMidBlock2DCrossAttn", "layers_per_block": 2}
    for key, value in (defaults | config).items():
        if key != "transformer_layers_per_block" and not key.startswith("reverse"):
            assert found[key] == value, key
    for name in ("down_blocks", "up_blocks"):
        heads = [
            [b.heads for a in block.attentions for t in a.transformer_blocks for b in (t.attn1, t.attn2)]
            for model in (unet, again)
            for block in getattr(model, name)
            if hasattr(block, "attentions")
        ]
        assert heads[: len(heads) // 2] == heads[len(heads) // 2 :]


@pytest.mark.parametrize("kind", [kind for kind in FULL if kind not in ("ssd-1b", "lcm")])
def test_our_names_are_those_of_diffusers_converter(kind: str, original: Any) -> None:
    config = FULL[kind] | {
        "block_out_channels": [
            32 * (i + 1) for i in range(len(FULL[kind].get("block_out_channels", [1] * 4)))
        ]
    }
    heads = config["attention_head_dim"]
    config["attention_head_dim"] = [4] * len(heads) if isinstance(heads, list) else 4
    unet = meta(lambda: UNet2DConditionModel(**config))
    state = original(unet=unet)
    expected = convert_ldm_unet_checkpoint(dict(state), dict(unet.config))
    tensors = network_tensors(entries(state), Place("unet", "model.diffusion_model.", "unet"), where="x")
    assert shapes(tensors) == shapes(expected) == shapes(unet)


@pytest.mark.parametrize("kind", FULL)
def test_blocks_of_both_layouts_are_the_same(kind: str, original: Any) -> None:
    unet = meta(lambda: UNet2DConditionModel(**FULL[kind]))
    state = original(unet=unet)
    names = [name.removeprefix("model.diffusion_model.") for name in state]
    assert original_blocks(names, where="x") == diffusers_blocks(unet.state_dict())


VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}


def test_every_tensor_of_the_vae(original: Any) -> None:
    vae = meta(lambda: AutoencoderKL(**VAE))
    state = original(vae=vae)
    tensors = network_tensors(entries(state), Place("vae", "first_stage_model.", "vae"), where="x")
    assert shapes(tensors) == shapes(vae)
    assert shapes(convert_ldm_vae_checkpoint(dict(state), dict(vae.config))) == shapes(vae)
    part = {name.removeprefix("first_stage_model."): e for name, e in entries(state).items()}
    for half in (part, {n: e for n, e in part.items() if "encoder" not in n and not n.startswith("quant")}):
        found = vae_config(half, where="x")
        assert shapes(meta(lambda found=found: AutoencoderKL.from_config(found))) == shapes(vae)


@pytest.mark.parametrize(
    ("kind", "size", "layers", "model"),
    [
        ("sd2", (1024, 16, 4096), 23, CLIPTextModel),
        ("sdxl", (1280, 20, 5120), 32, CLIPTextModelWithProjection),
        ("sdxl-refiner", (1280, 20, 5120), 32, CLIPTextModelWithProjection),
    ],
)
def test_every_tensor_of_open_clip(
    kind: str, size: tuple[int, int, int], layers: int, model: type, original: Any
) -> None:
    width, heads, inner = size
    config = CLIPTextConfig(
        hidden_size=width, num_attention_heads=heads, intermediate_size=inner, num_hidden_layers=layers,
        projection_dim=width, hidden_act="gelu",
    )  # fmt: skip
    encoder = meta(lambda: model(config))
    state = original(open_text=encoder, kind=kind)
    prefix = next(iter(state)).partition("transformer.")[0]
    layout = "open_clip_penultimate" if kind == "sd2" else "open_clip"
    tensors = network_tensors(entries(state), Place("x", prefix, layout), where="x")
    named = {n if n.startswith("text_") else f"text_model.{n}": s for n, s in shapes(encoder).items()}
    assert shapes(tensors) == named
    expected = convert_open_clip_checkpoint(encoder, dict(state), prefix=prefix)
    assert shapes(tensors) == shapes(expected)
    found = CLIPTextConfig(**text_config(tensors, openai=False, where="x"))
    assert shapes(meta(lambda: model(found))) == shapes(encoder)
    assert (found.num_attention_heads, found.hidden_act) == (heads, "gelu")
