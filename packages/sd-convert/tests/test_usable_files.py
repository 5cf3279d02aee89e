"""Files that the ecosystem's own writers make, and that diffusers and transformers load without a word."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sd_convert import CheckpointError, ConversionOptions, open_checkpoint
from sd_convert.checkpoint.weights import open_weights
from sd_convert.components import build_component

EMA = {"decay": 0.9999, "min_decay": 0.0, "optimization_step": 500, "power": 0.667, "inv_gamma": 1.0}


def edited(tiny: Path, tmp_path: Path, folder: str, **changes: Any) -> Path:
    """A copy of the checkpoint with other values in a config."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    file = copy / folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return copy


def test_what_an_average_of_weights_says_of_itself(tiny: Path, tmp_path: Path) -> None:
    copy = edited(tiny, tmp_path, "unet", **EMA, update_after_step=0, use_ema_warmup=True)
    checkpoint = open_checkpoint(copy, components=["unet"])
    assert build_component("unet", checkpoint, ConversionOptions()).name == "unet"


def test_a_config_with_fewer_layers_than_the_file(tiny: Path, tmp_path: Path) -> None:
    """How layers are skipped by config: the surplus ones are left out, as transformers does."""
    from transformers import CLIPTextModel

    copy = edited(tiny, tmp_path, "text_encoder", num_hidden_layers=1)
    component = build_component("text_encoder", open_checkpoint(copy), ConversionOptions())
    module = component.module
    names = list(module.state_dict())
    assert not any("layers.1." in name for name in names)
    weights = {n: torch.from_numpy(np.array(component.weights[n], np.float32)) for n in names}
    module.load_state_dict(weights, assign=True)
    ids = torch.zeros(component.inputs[0].shape)
    variant = "fp16" if list((copy / "text_encoder").glob("*.fp16.safetensors")) else None
    theirs = CLIPTextModel.from_pretrained(copy / "text_encoder", variant=variant, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(ids.long()).last_hidden_state
        torch.testing.assert_close(module(ids)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [[1] * 65, [0, 2**63], [2**64, 0]])
def test_sizes_that_no_array_has(shape: list[int], tmp_path: Path) -> None:
    count = 0 if 0 in shape else 1
    header = {"x": {"dtype": "F16", "shape": shape, "data_offsets": [0, 2 * count]}}
    text = json.dumps(header).encode()
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(2 * count))
    with pytest.raises(CheckpointError, match="'x'"):
        open_weights([file])


@pytest.mark.parametrize("folder", ["unet", "vae", "text_encoder"])
def test_of_a_file_and_shards_the_one_that_the_library_loads(folder: str, tiny: Path, tmp_path: Path) -> None:
    """Both are there, as a folder that was saved twice has them; one is all zeros."""
    import diffusers
    from safetensors.torch import load_file, save_file
    from transformers import CLIPTextModel

    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    (file,) = (copy / folder).glob("*.safetensors")
    state = load_file(file)
    file.unlink()
    stem = "model" if folder == "text_encoder" else "diffusion_pytorch_model"
    shard = f"{stem}-00001-of-00001.safetensors"
    save_file(state, copy / folder / shard, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(state, shard)}
    (copy / folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    save_file(zeros, copy / folder / f"{stem}.safetensors", metadata={"format": "pt"})
    kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    loaded = kinds.get(folder, CLIPTextModel).from_pretrained(copy / folder)
    theirs = any(bool(tensor.any()) for tensor in loaded.state_dict().values())
    component = "vae_decoder" if folder == "vae" else folder
    weights = open_checkpoint(copy, components=[component]).weights(component)
    assert any(np.any(weights[name]) for name in weights if not name.endswith("position_ids")) == theirs


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><title>Login</title>" + b"x" * 999, "HTML"),
        (b"PK\x03\x04" + bytes(999), "pickle"),
        (b"\x80\x02}q\x00." + bytes(999), "pickle"),
        (b"GGUF" + bytes(999), "GGUF"),
    ],
)
def test_other_files_under_the_name_of_weights(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"(?i){said}"):
        open_weights([file])
