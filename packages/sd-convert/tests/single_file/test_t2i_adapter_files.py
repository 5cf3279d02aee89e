"""T2I-Adapters in single files, in the original layout and in diffusers', against diffusers' own classes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import T2IAdapter
from safetensors.torch import save_file
from sd_convert import NotACheckpointError, UnsupportedArchitectureError, read_t2i_adapter_file

XL = {"addition_embed_type": "text_time"}


def original(name: str) -> str:
    """As diffusers' script for these files has them, the other way round."""
    name = name.removeprefix("adapter.")
    if match := re.fullmatch(r"body\.(\d)\.resnets\.(\d)\.(.+)", name):
        return f"body.{2 * int(match[1]) + int(match[2])}.{match[3]}"
    match = re.fullmatch(r"body\.(\d)\.(in_conv\..+)", name)
    return f"body.{2 * int(match[1])}.{match[2]}" if match else name


def original_light(name: str) -> str:
    return re.sub(r"(body\.\d)\.resnets\.", r"\1.body.", name.removeprefix("adapter."))


def made(kind: str, **config: Any) -> T2IAdapter:
    torch.manual_seed(2)
    channels = [8, 16, 32] if kind == "light_adapter" else [8, 16, 32, 32]
    return T2IAdapter(adapter_type=kind, channels=channels, **config).eval()


@pytest.mark.parametrize(
    ("kind", "config", "rename", "unet"),
    [
        ("full_adapter", {"in_channels": 3}, original, {}),
        ("full_adapter", {"in_channels": 1, "downscale_factor": 4}, original, {}),
        ("full_adapter", {"in_channels": 1, "num_res_blocks": 3}, str, {}),
        ("full_adapter_xl", {"in_channels": 3, "downscale_factor": 16}, str, XL),
        ("full_adapter_xl", {"in_channels": 1, "downscale_factor": 16}, original, XL),
        ("light_adapter", {"in_channels": 3, "num_res_blocks": 4}, original_light, {}),
        ("light_adapter", {"in_channels": 3, "num_res_blocks": 4}, str, {}),
    ],
)
def test_it_is_built_as_diffusers_builds_it(
    tmp_path: Path, kind: str, config: dict[str, Any], rename: Any, unet: dict[str, Any]
) -> None:
    model = made(kind, **config)
    state = {rename(name): tensor.contiguous() for name, tensor in model.state_dict().items()}
    assert len(state) == len(model.state_dict())
    save_file(state, tmp_path / "sketch.safetensors")
    found, source = read_t2i_adapter_file(tmp_path / "sketch.safetensors", unet)
    assert found["adapter_type"] == kind
    rebuilt = T2IAdapter.from_config(dict(found)).eval()
    weights = {name: torch.from_numpy(np.array(array)) for name, array in source.open().items()}
    rebuilt.load_state_dict(weights)
    assert (rebuilt.total_downscale_factor, rebuilt.downscale_factor) == (
        model.total_downscale_factor,
        model.downscale_factor,
    )
    hint = torch.rand(1, config["in_channels"], 64, 128)
    with torch.no_grad():
        for ours, theirs in zip(rebuilt(hint), model(hint), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("state", "kind", "said"),
    [
        ({"x": (1,)}, NotACheckpointError, "expected a T2I-Adapter .* got x"),
        ({"conv_in.weight": (8, 192, 3, 3)}, NotACheckpointError, "expected a T2I-Adapter"),
        (
            {
                "conv_in.weight": (8, 192, 3, 3),
                "body.0.block1.weight": (8, 8, 3, 3),
                "body.2.down_opt.op.weight": (8, 8, 3, 3),
            },
            UnsupportedArchitectureError,
            r"halves by means, got body\.2\.down_opt",
        ),
        (
            {"conv_in.weight": (8, 190, 3, 3), "body.0.block1.weight": (8, 8, 3, 3)},
            UnsupportedArchitectureError,
            "got 190 channels",
        ),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, state: dict[str, tuple[int, ...]], kind: type[Exception], said: str
) -> None:
    save_file({name: torch.zeros(shape) for name, shape in state.items()}, tmp_path / "a.safetensors")
    with pytest.raises(kind, match=said):
        read_t2i_adapter_file(tmp_path / "a.safetensors", {})
