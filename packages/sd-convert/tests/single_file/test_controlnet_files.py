"""ControlNets in single files, in the original layout and in diffusers', against diffusers' own reading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors.torch import save_file
from sd_convert import (
    NotACheckpointError,
    UnsupportedArchitectureError,
    open_checkpoint,
    open_network,
    read_controlnet_file,
)

#: Of a ControlNet with two blocks of one layer: diffusers' modules and the original ones.
BLOCKS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.{last}",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def original(name: str, last: int) -> str:
    """The name of a tensor in the original layout."""
    if match := re.fullmatch(r"controlnet_down_blocks\.(\d+)\.(\w+)", name):
        return f"zero_convs.{match[1]}.0.{match[2]}"
    if match := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d+)\.(\w+)", name):
        return f"input_hint_block.{2 * int(match[1]) + 2}.{match[2]}"
    (ours,) = [block for block in BLOCKS if name.startswith(f"{block}.")]
    rest = name.removeprefix(f"{ours}.")
    if ".resnets." in ours:
        inner, _, kind = rest.rpartition(".")
        rest = f"{RESNET[inner]}.{kind}"
    return f"{BLOCKS[ours].format(last=last)}.{rest}"


@pytest.fixture(scope="module", params=[(8, 16), (8, 16, 24, 32)], ids=["small hint", "full hint"])
def model(request: Any) -> ControlNetModel:
    torch.manual_seed(3)
    made = ControlNetModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=16,
        conditioning_embedding_out_channels=request.param,
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made.half().eval()


@pytest.mark.parametrize("layout", ["control_model.", "", "diffusers"])
def test_it_is_read_as_diffusers_reads_it(
    model: ControlNetModel, tiny: Path, tmp_path: Path, layout: str
) -> None:
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    last = 4 * (len(model.config.conditioning_embedding_out_channels) - 1) + 2
    names = {name: name if layout == "diffusers" else layout + original(name, last) for name in state}
    stored = {names[name]: tensor for name, tensor in state.items()}
    if layout != "diffusers" and last == 14:  # diffusers knows but the published hint's number of layers
        theirs = convert_controlnet_checkpoint(dict(stored), {"layers_per_block": 1})
        assert all(torch.equal(theirs[name], tensor) for name, tensor in state.items())
    if layout == "control_model.":  # a file may have the UNet beside it
        stored["model.diffusion_model.out.2.weight"] = torch.zeros(1)
    save_file(stored, tmp_path / "canny.safetensors")
    network = open_network(
        tmp_path / "canny.safetensors",
        open_checkpoint(tiny),
        folder="controlnet",
        what="a ControlNet",
        read_file=read_controlnet_file,
    )
    assert network.name == "canny"
    weights = network.source.open()
    assert set(weights) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())
    rebuilt = ControlNetModel.from_config(dict(network.config))
    rebuilt.load_state_dict(state)
    for key in ("attention_head_dim", "norm_num_groups", "down_block_types", "cross_attention_dim"):
        assert rebuilt.config[key] == type(rebuilt.config[key])(model.config[key]), key


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("lora_controlnet", UnsupportedArchitectureError, "a Control-LoRA"),
        ("something.else", NotACheckpointError, "expected a ControlNet .* got something.else"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, kind: type[Exception], said: str) -> None:
    save_file({name: torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(kind, match=said):
        read_controlnet_file(tmp_path / "other.safetensors", {})


def test_a_union_controlnet_is_read_from_its_names_and_shapes(tiny: Path, tmp_path: Path) -> None:
    """diffusers' class, built from the config that was found, takes the file and computes the same."""
    from diffusers import ControlNetUnionModel

    torch.manual_seed(3)
    made = ControlNetUnionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=16,
        conditioning_embedding_out_channels=(8, 16),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
        num_control_type=4,
        num_trans_channel=32,
        num_trans_head=2,
        num_trans_layer=2,
        num_proj_channel=32,
    ).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_file(made.state_dict(), tmp_path / "union.safetensors")
    unet = {"addition_time_embed_dim": 8, "attention_head_dim": 4, "norm_num_groups": 16}
    config, source = read_controlnet_file(tmp_path / "union.safetensors", unet)
    rebuilt = ControlNetUnionModel.from_config(dict(config)).eval()
    rebuilt.load_state_dict(
        {name: torch.from_numpy(np.array(array)) for name, array in source.open().items()}
    )
    given = {
        "sample": torch.randn(1, 4, 8, 8),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(1, 5, 32),
        "controlnet_cond": [torch.rand(1, 3, 16, 16)],
        "control_type": torch.eye(4)[2:3],
        "control_type_idx": [2],
        "conditioning_scale": [1.0],
        "added_cond_kwargs": {"text_embeds": torch.randn(1, 16), "time_ids": torch.ones(1, 6)},
    }
    with torch.no_grad():
        found, expected = rebuilt(**given), made(**given)
    torch.testing.assert_close(found.mid_block_res_sample, expected.mid_block_res_sample)
    save_file(
        {
            "task_embedding": torch.zeros(3),
            **{k: v for k, v in made.state_dict().items() if k != "task_embedding"},
        },
        tmp_path / "odd.safetensors",
    )
    with pytest.raises(UnsupportedArchitectureError, match=r"a union ControlNet with task_embedding"):
        read_controlnet_file(tmp_path / "odd.safetensors", unet)
