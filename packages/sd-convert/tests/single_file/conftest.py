"""Networks of diffusers and transformers under the names of the original layout.

The inverse of what is tested, written from the layout of CompVis' and Stability's own code and not from ours;
diffusers' converters, which go the same way as ours, hold it in place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]

RESNET = (
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"), ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection"),
)  # fmt: skip
ENDS = (
    ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
    ("time_embedding.cond_proj", "time_embed.cond_proj"),
    ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_norm_out", "out.0"), ("conv_out", "out.2"), ("conv_in", "input_blocks.0.0"),
)  # fmt: skip


def original_unet(state: Mapping[str, Tensor]) -> State:
    """``down_blocks.1.resnets.0.norm1`` to ``input_blocks.4.0.in_layers.0``, and so on."""
    places: list[tuple[str, str]] = []
    number = 1
    for block in range(9):
        for layer in range(9):
            if f"down_blocks.{block}.resnets.{layer}.norm1.weight" in state:
                places += _resnet(f"down_blocks.{block}.resnets.{layer}.", f"input_blocks.{number}.0.")
                places += [(f"down_blocks.{block}.attentions.{layer}.", f"input_blocks.{number}.1.")]
                number += 1
        if f"down_blocks.{block}.downsamplers.0.conv.weight" in state:
            places += [(f"down_blocks.{block}.downsamplers.0.conv.", f"input_blocks.{number}.0.op.")]
            number += 1
    for layer in range(2):
        places += _resnet(f"mid_block.resnets.{layer}.", f"middle_block.{2 * layer}.")
    places += [("mid_block.attentions.0.", "middle_block.1.")]
    number = 0
    for block in range(9):
        for layer in range(9):
            if f"up_blocks.{block}.resnets.{layer}.norm1.weight" in state:
                places += _resnet(f"up_blocks.{block}.resnets.{layer}.", f"output_blocks.{number}.0.")
                places += [(f"up_blocks.{block}.attentions.{layer}.", f"output_blocks.{number}.1.")]
                number += 1
        position = 2 if f"up_blocks.{block}.attentions.0.norm.weight" in state else 1
        places += [(f"up_blocks.{block}.upsamplers.0.", f"output_blocks.{number - 1}.{position}.")]
    places += [(f"{ours}.", f"{theirs}.") for ours, theirs in ENDS]
    return _renamed(state, places)


def _resnet(ours: str, theirs: str) -> list[tuple[str, str]]:
    return [(f"{ours}{a}.", f"{theirs}{b}.") for a, b in RESNET]


def _renamed(state: Mapping[str, Tensor], places: list[tuple[str, str]]) -> State:
    result: State = {}
    for name, tensor in state.items():
        ((ours, theirs),) = [place for place in places if name.startswith(place[0])]
        result[theirs + name.removeprefix(ours)] = tensor
    assert len(result) == len(state)
    return result


def original_vae(state: Mapping[str, Tensor], *, blocks: int) -> State:
    """``decoder.up_blocks.0.resnets.1`` to ``decoder.up.3.block.1``.

    The matrices of attention as convolutions.
    """
    result: State = {}
    for name, tensor in state.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        for block in range(blocks):
            new = new.replace(f"down_blocks.{block}.resnets", f"down.{block}.block")
            new = new.replace(f"up_blocks.{block}.resnets", f"up.{blocks - 1 - block}.block")
            new = new.replace(f"down_blocks.{block}.downsamplers.0", f"down.{block}.downsample")
            new = new.replace(f"up_blocks.{block}.upsamplers.0", f"up.{blocks - 1 - block}.upsample")
        new = new.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0" in new:
            new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("to_out.0", "proj_out")
            new = new.replace("group_norm", "norm").replace("to_", "")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        result[new] = tensor.contiguous()
    return result


def open_clip(state: Mapping[str, Tensor], *, extra_layer: bool = False) -> State:
    """transformers' CLIP text model to OpenCLIP's; ``extra_layer`` is the one that SD 2 leaves out."""
    prefix = "" if any(name.startswith("text_model.") for name in state) else "text_model."
    named = {
        prefix + name if not name.startswith("text_projection") else name: t for name, t in state.items()
    }
    result: State = {}
    layers = 0
    for name, tensor in named.items():
        if name.startswith("text_model.encoder.layers."):
            number, _, rest = name.removeprefix("text_model.encoder.layers.").partition(".")
            layers = max(layers, int(number) + 1)
            if rest.startswith("self_attn.q_proj."):
                parts = [tensor, *(named[name.replace("q_proj", part)] for part in ("k_proj", "v_proj"))]
                kind = rest.rpartition(".")[2]
                result[f"transformer.resblocks.{number}.attn.in_proj_{kind}"] = torch.cat(parts)
            elif not rest.startswith(("self_attn.k_proj", "self_attn.v_proj")):
                for ours, theirs in (
                    ("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"),
                    ("mlp.fc2", "mlp.c_proj"),
                    ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                ):  # fmt: skip
                    rest = rest.replace(ours, theirs)
                result[f"transformer.resblocks.{number}.{rest}"] = tensor
    result["token_embedding.weight"] = named["text_model.embeddings.token_embedding.weight"]
    result["positional_embedding"] = named["text_model.embeddings.position_embedding.weight"]
    result["ln_final.weight"] = named["text_model.final_layer_norm.weight"]
    result["ln_final.bias"] = named["text_model.final_layer_norm.bias"]
    width = result["ln_final.bias"].shape[0]
    if "text_projection.weight" in named:
        result["text_projection"] = named["text_projection.weight"].T.contiguous()
    if extra_layer:
        first = {n: t for n, t in result.items() if n.startswith("transformer.resblocks.0.")}
        result |= {n.replace(".0.", f".{layers}.", 1): torch.ones_like(t) for n, t in first.items()}
        result["text_projection"] = torch.ones(width, width, device=tensor.device)
    result["logit_scale"] = torch.tensor(4.6)
    return result


def below(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def clip(state: Mapping[str, Tensor]) -> State:
    """transformers' CLIP text model as old versions saved it."""
    named = {n if n.startswith("text_model.") else f"text_model.{n}": t for n, t in state.items()}
    return named | {"text_model.embeddings.position_ids": torch.arange(77)[None]}


@pytest.fixture(scope="session")
def original() -> Callable[..., State]:
    """``original(unet=..., vae=..., clip=...)``.

    Modules to one state dict in the layout of SD 1.x, 2.x or XL.
    """

    def merge(
        *,
        unet: Any = None,
        vae: Any = None,
        text: Any = None,
        open_text: Any = None,
        kind: str = "sd1",
    ) -> State:
        state: State = {}
        if unet is not None:
            state |= below("model.diffusion_model.", original_unet(unet.state_dict()))
        if vae is not None:
            blocks = len(vae.config.block_out_channels)
            state |= below("first_stage_model.", original_vae(vae.state_dict(), blocks=blocks))
        if text is not None:
            prefix = "cond_stage_model." if kind == "sd1" else "conditioner.embedders.0."
            state |= below(f"{prefix}transformer.", clip(text.state_dict()))
        if open_text is not None:
            prefix = {
                "sd2": "cond_stage_model.model.",
                "sdxl": "conditioner.embedders.1.model.",
                "sdxl-refiner": "conditioner.embedders.0.model.",
            }[kind]
            state |= below(prefix, open_clip(open_text.state_dict(), extra_layer=kind == "sd2"))
        return state

    return merge


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write a state dict with what training leaves beside it."""

    def write(
        state: Mapping[str, Tensor], *, name: str = "model", metadata: Any = None, **extra: Tensor
    ) -> Path:
        path = tmp_path / f"{name}.safetensors"
        beside = {"alphas_cumprod": torch.linspace(1, 0, 10), "model_ema.decay": torch.tensor(0.9999)}
        tensors = {n: t.clone().contiguous() for n, t in {**state, **beside, **extra}.items()}
        save_file(tensors, path, metadata=metadata)
        return path

    return write


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of letters, without a config."""
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = [chr(number) for number in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder
