"""Checkpoints in 8-bit floats against torch: every number, with and without scales, in every place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sd_convert import (
    CheckpointError,
    ConversionOptions,
    Lora,
    UnsupportedArchitectureError,
    build_component,
    open_checkpoint,
)
from sd_convert.checkpoint.weights import open_weights
from torch import Tensor

FORMATS = (torch.float8_e4m3fn, torch.float8_e5m2)
#: How the older and the newer files name the scale, the input's scale, and announce both.
NAMES = {"older": ("scale_weight", "scale_input"), "newer": ("weight_scale", "input_scale")}


def one_file(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "a.safetensors")
    return folder / "a.safetensors"


def layer_format(**said: Any) -> Tensor:
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_every_number_is_that_of_torch(dtype: torch.dtype, tmp_path: Path) -> None:
    numbers = torch.arange(256, dtype=torch.uint8).view(dtype)
    read = open_weights([one_file(tmp_path, {"a": numbers.reshape(16, 16)})])["a"]
    expected = numbers.float().reshape(16, 16).numpy()
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(np.signbit(read), np.signbit(expected))


@pytest.mark.parametrize("age", NAMES)
@pytest.mark.parametrize("shape", [(), (1,), (6, 1)])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_scales_are_multiplied_in(
    age: str, shape: tuple[int, ...], dtype: torch.dtype, tmp_path: Path
) -> None:
    scale, weight = torch.rand(shape) + 0.01, torch.randn(6, 4).to(dtype)
    names = NAMES[age]
    tensors = {
        "net.a.weight": weight,
        f"net.a.{names[0]}": scale,
        f"net.a.{names[1]}": torch.tensor(3.0),
        "net.a.bias": torch.ones(6),
        "net.plain.weight": weight.clone(),
    }
    tensors |= (
        {"net.scaled_fp8": torch.zeros(0, dtype=dtype)}
        if age == "older"
        else {"net.a.comfy_quant": layer_format(format="float8_e4m3fn", full_precision_matrix_mult=True)}
    )
    read = open_weights([one_file(tmp_path, tensors)])
    assert set(read) == {"net.a.weight", "net.a.bias", "net.plain.weight"}
    np.testing.assert_array_equal(read["net.a.weight"], (weight.float() * scale).numpy())
    np.testing.assert_array_equal(read["net.plain.weight"], weight.float().numpy())


def test_a_part_and_a_transpose_have_their_scales(tmp_path: Path) -> None:
    weight, scale = torch.randn(6, 4).to(FORMATS[0]), torch.rand(6, 1) + 0.1
    file = one_file(tmp_path, {"weight": weight, "weight_scale": scale})
    entry, expected = open_weights([file]).entries["weight"], (weight.float() * scale).numpy()
    np.testing.assert_array_equal(entry.part(1, 3).read(), expected[2:4])
    np.testing.assert_array_equal(entry.turned().read(), expected.T)


def test_a_scale_in_another_shard(tmp_path: Path) -> None:
    save_file({"a.weight": torch.ones(2, 2).to(FORMATS[0])}, tmp_path / "1.safetensors")
    save_file({"a.scale_weight": torch.tensor(0.25)}, tmp_path / "2.safetensors")
    read = open_weights([tmp_path / "1.safetensors", tmp_path / "2.safetensors"])
    np.testing.assert_array_equal(read["a.weight"], np.full((2, 2), 0.25))


@pytest.mark.parametrize("shape", [(6,), (4, 1), (1, 4), (2, 2), (0,)])
def test_scales_that_do_not_fit(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensors = {"a.weight": torch.ones(6, 4).to(FORMATS[0]), "a.scale_weight": torch.ones(shape)}
    with pytest.raises(CheckpointError, match=r"a\.scale_weight.* one number or \[6, 1\]"):
        open_weights([one_file(tmp_path, tensors)])


def test_two_scales_and_scales_that_are_no_numbers(tmp_path: Path) -> None:
    weight, one = torch.ones(2, 2).to(FORMATS[0]), torch.ones(())
    with pytest.raises(CheckpointError, match="a second one"):
        open_weights(
            [one_file(tmp_path, {"a.weight": weight, "a.scale_weight": one, "a.weight_scale": one + 1})]
        )
    file = one_file(tmp_path, {"a.weight": weight, "a.scale_weight": one * torch.nan})
    with pytest.raises(CheckpointError, match="finite scales"):
        open_weights([file])["a.weight"]
    with pytest.raises(CheckpointError, match="got I64"):
        open_weights([one_file(tmp_path, {"a.weight": weight, "a.scale_weight": one.long()})])


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (layer_format(format="nvfp4"), UnsupportedArchitectureError, "nvfp4"),
        (layer_format(format="float8_e4m3fn", group_size=64), UnsupportedArchitectureError, "group_size"),
        (layer_format(), CheckpointError, "expected JSON with a format"),
        (torch.tensor([1, 2], dtype=torch.uint8), CheckpointError, "expected JSON with a format"),
    ],
)
def test_other_ways_to_store_a_layer(content: Tensor, error: Any, said: str, tmp_path: Path) -> None:
    tensors = {"a.weight": torch.ones(2, 2).to(FORMATS[0]), "a.comfy_quant": content}
    with pytest.raises(error, match=said):
        open_weights([one_file(tmp_path, tensors)])


def scaled(state: dict[str, Tensor], dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Matrices in scaled fp8, the others in plain fp8; and what they are worth."""
    stored, worth = {"scaled_fp8": torch.zeros(2, dtype=dtype)}, {}
    for index, (name, tensor) in enumerate(state.items()):
        factor = torch.tensor(0.5 + index / 7)
        stored[name] = (tensor / factor if name.endswith(".weight") else tensor).to(dtype)
        worth[name] = stored[name].float()
        if name.endswith(".weight"):
            stored[name.removesuffix("weight") + "scale_weight"] = factor
            stored[name.removesuffix("weight") + "scale_input"] = torch.tensor(2.0)
            worth[name] *= factor
    return stored, worth


@pytest.mark.parametrize("folder", ["unet", "text_encoder", "vae"])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_a_checkpoint_folder(folder: str, dtype: torch.dtype, tiny: Path) -> None:
    (file,) = (tiny / folder).glob("*.safetensors")
    stored, worth = scaled(load_file(file), dtype)
    save_file(stored, file)
    component = "vae_decoder" if folder == "vae" else folder
    built = build_component(component, open_checkpoint(tiny), ConversionOptions())
    for name, theirs in built.weights.names.items():
        np.testing.assert_array_equal(built.weights[name], worth[theirs].numpy())


def test_a_single_file(original: Any, tiny_models: Any, tokenizer_folder: Path, tmp_path: Path) -> None:
    state = original(unet=tiny_models.unet, vae=tiny_models.vae, text=tiny_models.text_encoder)
    unet = {n: t for n, t in state.items() if n.startswith("model.diffusion_model.")}
    stored, worth = scaled(unet, FORMATS[0])
    stored["model.diffusion_model.scaled_fp8"] = stored.pop("scaled_fp8")
    file = one_file(tmp_path, {**state, **stored})
    checkpoint = open_checkpoint(file, tokenizer=tokenizer_folder)
    got = checkpoint.weights("unet")["mid_block.resnets.0.conv1.weight"]
    name = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    np.testing.assert_array_equal(got, worth[name].numpy())


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_a_lora(dtype: torch.dtype, tiny: Path, tmp_path: Path) -> None:
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    before = open_checkpoint(tiny).weights("unet")[f"{name}.weight"].astype(np.float32)
    up, down = torch.randn(len(before), 2).to(dtype), torch.randn(2, before.shape[1]).to(dtype)
    key = f"lora_unet_{name.replace('.', '_')}"
    state = {
        f"{key}.lora_up.weight": up,
        f"{key}.lora_down.weight": down,
        f"{key}.alpha": torch.tensor(1.0).to(dtype),
    }
    after = open_checkpoint(tiny, loras=[Lora(one_file(tmp_path, state))]).weights("unet")[f"{name}.weight"]
    np.testing.assert_allclose(
        after, before + 0.5 * (up.float() @ down.float()).numpy(), rtol=1e-5, atol=1e-5
    )
