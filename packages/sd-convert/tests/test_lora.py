"""LoRAs of every form, merged.

Against the same arithmetic in torch and the names of diffusers' converters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from safetensors.torch import save_file
from sd_convert import (
    Checkpoint,
    CheckpointError,
    Lora,
    UnsupportedArchitectureError,
    WeightsMismatchError,
    open_checkpoint,
)
from torch import Tensor, nn

State = dict[str, Tensor]
TEXT = re.compile(r"encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$")
TARGETS = re.compile(
    r"(to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2|conv_in|conv_out|"
    r"time_emb_proj|conv_shortcut|downsamplers\.0\.conv|upsamplers\.0\.conv|linear_[12])$"
)


@dataclass
class Made:
    """A LoRA as a file, and what it adds to each module of each network."""

    state: State
    added: dict[str, dict[str, Tensor]]


def modules(network: nn.Module, targets: re.Pattern[str]) -> dict[str, Tensor]:
    return {
        name: module.weight.detach()
        for name, module in network.named_modules()
        if targets.search(name) and isinstance(module, nn.Linear | nn.Conv2d)
    }


def pair(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Down and up as trainers shape them, and their product in the weight's shape."""
    down = torch.randn(rank, *weight.shape[1:]) / 8
    up = torch.randn(weight.shape[0], rank, *(1,) * (weight.ndim - 2)) / 8
    return down, up, (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)


@pytest.fixture
def networks(tiny_models: Any) -> dict[str, dict[str, Tensor]]:
    text = modules(tiny_models.text_encoder, TEXT)
    named = {n if n.startswith("text_model.") else f"text_model.{n}": w for n, w in text.items()}
    return {"unet": modules(tiny_models.unet, TARGETS), "text_encoder": named}


def kohya(networks: Mapping[str, Mapping[str, Tensor]], *, alpha: float | None = 2.0) -> Made:
    state: State = {}
    added: dict[str, dict[str, Tensor]] = {}
    for folder, prefix in (("unet", "lora_unet_"), ("text_encoder", "lora_te_")):
        for number, (name, weight) in enumerate(networks[folder].items()):
            rank = 1 + number % 4
            down, up, product = pair(weight, rank)
            key = prefix + name.replace(".", "_")
            state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            if alpha is not None:
                state[f"{key}.alpha"] = torch.tensor(alpha)
            added.setdefault(folder, {})[name] = product * (1.0 if alpha is None else alpha / rank)
    return Made(state, added)


def merged(tiny: Path, tmp_path: Path, state: State, **lora: Any) -> Checkpoint:
    file = tmp_path / "lora.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    return open_checkpoint(tiny, loras=[Lora(file, **lora)])


def check(
    checkpoint: Checkpoint, tiny: Path, added: Mapping[str, Mapping[str, Tensor]], *, scales: Any = 1.0
) -> None:
    plain = open_checkpoint(tiny)
    for folder in ("unet", "text_encoder"):
        scale = scales[folder] if isinstance(scales, dict) else scales
        weights, before = checkpoint.weights(folder), plain.weights(folder)
        expected = {
            f"{name.removeprefix('text_model.')}.weight": t for name, t in added.get(folder, {}).items()
        }
        changed = 0
        for name in before:
            more = expected.get(name.removeprefix("text_model."))
            if more is None:
                np.testing.assert_array_equal(weights[name], before[name])
            else:
                changed += 1
                wanted = torch.from_numpy(np.array(before[name], np.float32)) + scale * more
                np.testing.assert_allclose(weights[name], wanted.numpy(), rtol=1e-4, atol=1e-5)
        assert changed == len(expected)


@pytest.mark.parametrize("alpha", [2.0, None])
@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_kohya(alpha: float | None, scale: float, tiny: Path, tmp_path: Path, networks: Any) -> None:
    made = kohya(networks, alpha=alpha)
    check(merged(tiny, tmp_path, made.state, scale=scale), tiny, made.added, scales=scale)


def test_the_text_encoder_has_a_scale_of_its_own(tiny: Path, tmp_path: Path, networks: Any) -> None:
    made = kohya(networks)
    checkpoint = merged(tiny, tmp_path, made.state, scale=0.5, text_scale=0.0)
    check(checkpoint, tiny, made.added, scales={"unet": 0.5, "text_encoder": 0.0})


def test_several(tiny: Path, tmp_path: Path, networks: Any) -> None:
    one, two = kohya(networks), kohya(networks)
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for made, file in zip((one, two), files, strict=True):
        save_file(made.state, file)
    checkpoint = open_checkpoint(tiny, loras=[Lora(files[0], 0.3), Lora(files[1], 0.7)])
    total = {
        folder: {name: 0.3 * t + 0.7 * two.added[folder][name] for name, t in those.items()}
        for folder, those in one.added.items()
    }
    check(checkpoint, tiny, total)


def rename_parts(state: State, down: str, up: str) -> State:
    return {n.replace("lora_down.weight", down).replace("lora_up.weight", up): t for n, t in state.items()}


def peft(networks: Any, prefixes: Mapping[str, str], down: str, up: str) -> Made:
    made = kohya(networks, alpha=None)
    state: State = {}
    for folder, those in networks.items():
        kohya_prefix = "lora_unet_" if folder == "unet" else "lora_te_"
        for name in those:
            key = kohya_prefix + name.replace(".", "_")
            state[f"{prefixes[folder]}{name}.{down}"] = made.state[f"{key}.lora_down.weight"]
            state[f"{prefixes[folder]}{name}.{up}"] = made.state[f"{key}.lora_up.weight"]
    return Made(state, made.added)


DOTTED = {"unet": "unet.", "text_encoder": "text_encoder."}


@pytest.mark.parametrize(
    ("prefixes", "down", "up"),
    [
        (DOTTED, "lora_A.weight", "lora_B.weight"),
        (DOTTED, "lora_A.default.weight", "lora_B.default.weight"),
        (DOTTED, "lora.down.weight", "lora.up.weight"),
        (DOTTED, "lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
        ({"unet": "", "text_encoder": "text_encoder."}, "lora_A.weight", "lora_B.weight"),
        (
            {"unet": "base_model.model.", "text_encoder": "base_model.model."},
            "lora_A.weight",
            "lora_B.weight",
        ),
    ],
)
def test_diffusers_and_peft(
    prefixes: dict[str, str], down: str, up: str, tiny: Path, tmp_path: Path, networks: Any
) -> None:
    made = peft(networks, prefixes, down, up)
    check(merged(tiny, tmp_path, made.state), tiny, made.added)


def test_the_oldest_names_of_diffusers(tiny: Path, tmp_path: Path, networks: Any) -> None:
    attention = {
        "unet": {n: w for n, w in networks["unet"].items() if ".to_" in n},
        "text_encoder": {n: w for n, w in networks["text_encoder"].items() if "self_attn" in n},
    }
    made = peft(attention, DOTTED, "lora.down.weight", "lora.up.weight")
    state = {}
    for name, tensor in made.state.items():
        new = name.replace(".to_out.0.", ".to_out.").replace("attn1.", "attn1.processor.")
        new = new.replace("attn2.", "attn2.processor.").replace(".lora.", "_lora.")
        new = re.sub(r"self_attn\.(q|k|v|out)_proj", r"self_attn.to_\1", new)
        state[new] = tensor
    assert any("attn2.processor.to_out_lora.down.weight" in name for name in state)
    check(merged(tiny, tmp_path, state), tiny, made.added)


@pytest.mark.parametrize("where", ["metadata", "beside"])
def test_alpha_of_peft(where: str, tiny: Path, tmp_path: Path, networks: Any) -> None:
    made = peft({"unet": networks["unet"], "text_encoder": {}}, DOTTED, "lora_A.weight", "lora_B.weight")
    file = tmp_path / "adapter_model.safetensors"
    special = next(name for name in networks["unet"] if name.endswith("attn1.to_q"))
    ranks = {n.removesuffix(".lora_A.weight"): t.shape[0] for n, t in made.state.items() if "lora_A" in n}
    settings = {"lora_alpha": 6, "alpha_pattern": {special: 3}}
    if where == "metadata":
        named = {f"unet.{key}": value for key, value in settings.items()}
        save_file(made.state, file, metadata={"lora_adapter_metadata": json.dumps(named)})
    else:
        save_file(made.state, file)
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    factors = {n: (3 if n == special else 6) / ranks[f"unet.{n}"] for n in networks["unet"]}
    added = {"unet": {n: factors[n] * t for n, t in made.added["unet"].items()}}
    check(open_checkpoint(tiny, loras=[Lora(tmp_path)]), tiny, added)


def weight_of(networks: Any, ending: str) -> tuple[str, Tensor]:
    return next((n, w) for n, w in networks["unet"].items() if n.endswith(ending))


def test_convolutions_with_a_core(tiny: Path, tmp_path: Path, networks: Any) -> None:
    name, weight = weight_of(networks, "resnets.0.conv1")
    up, mid = torch.randn(weight.shape[0], 3, 1, 1), torch.randn(3, 3, 3, 3)
    down = torch.randn(3, weight.shape[1], 1, 1)
    key = f"lora_unet_{name.replace('.', '_')}"
    state = {f"{key}.lora_up.weight": up, f"{key}.lora_mid.weight": mid, f"{key}.lora_down.weight": down}
    kernel = torch.stack(
        [
            torch.stack([up[:, :, 0, 0] @ mid[:, :, i, j] @ down[:, :, 0, 0] for j in range(3)], -1)
            for i in range(3)
        ],
        -2,
    )
    check(merged(tiny, tmp_path, state), tiny, {"unet": {name: kernel}})


@pytest.mark.parametrize("ending", ["attn1.to_q", "resnets.0.conv1"])
def test_hadamard(ending: str, tiny: Path, tmp_path: Path, networks: Any) -> None:
    name, weight = weight_of(networks, ending)
    parts = {
        "hada_w1_a": torch.randn(weight.shape[0], 2), "hada_w1_b": torch.randn(2, weight[0].numel()),
        "hada_w2_a": torch.randn(weight.shape[0], 2), "hada_w2_b": torch.randn(2, weight[0].numel()),
    }  # fmt: skip
    product = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    key = f"lora_unet_{name.replace('.', '_')}"
    state = {f"{key}.{part}": tensor for part, tensor in parts.items()} | {f"{key}.alpha": torch.tensor(1.0)}
    check(merged(tiny, tmp_path, state), tiny, {"unet": {name: product.reshape(weight.shape) / 2}})


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("ending", ["attn1.to_q", "resnets.0.conv1"])
def test_kronecker(ending: str, low_rank: bool, tiny: Path, tmp_path: Path, networks: Any) -> None:
    name, weight = weight_of(networks, ending)
    rows, columns = weight.shape[0] // 4, weight.shape[1] // 4
    first = torch.randn(4, 4)
    parts = {"lokr_w1": first}
    if low_rank:
        parts["lokr_w2_a"] = torch.randn(rows, 2)
        parts["lokr_w2_b"] = torch.randn(2, columns * weight[0, 0].numel())
        second = (parts["lokr_w2_a"] @ parts["lokr_w2_b"]).reshape(rows, columns, *weight.shape[2:])
        if weight.ndim == 4:
            parts["lokr_w2_b"] = parts["lokr_w2_b"].reshape(2, columns, *weight.shape[2:])
    else:
        second = parts["lokr_w2"] = torch.randn(rows, columns, *weight.shape[2:])
    product = torch.kron(first.reshape(4, 4, *(1,) * (weight.ndim - 2)), second)
    key = f"lora_unet_{name.replace('.', '_')}"
    state = {f"{key}.{part}": tensor for part, tensor in parts.items()} | {f"{key}.alpha": torch.tensor(3.0)}
    check(merged(tiny, tmp_path, state), tiny, {"unet": {name: product * (1.5 if low_rank else 1.0)}})


def test_full_differences(tiny: Path, tmp_path: Path, networks: Any) -> None:
    name, weight = weight_of(networks, "conv_in")
    key, bias = "lora_unet_conv_in", torch.randn(weight.shape[0])
    state = {f"{key}.diff": torch.randn_like(weight), f"{key}.diff_b": bias}
    checkpoint = merged(tiny, tmp_path, state, scale=0.5)
    before = open_checkpoint(tiny).weights("unet")
    wanted = {name: state[f"{key}.diff"]}
    np.testing.assert_allclose(
        checkpoint.weights("unet")["conv_in.weight"],
        before["conv_in.weight"] + 0.5 * wanted[name].numpy(),
        1e-4,
        1e-5,
    )
    np.testing.assert_allclose(
        checkpoint.weights("unet")["conv_in.bias"], before["conv_in.bias"] + 0.5 * bias.numpy(), 1e-4, 1e-5
    )


@pytest.mark.parametrize("form", ["rows", "columns", "peft"])
@pytest.mark.parametrize("ending", ["attn1.to_q", "resnets.0.conv1"])
def test_dora(form: str, ending: str, tiny: Path, tmp_path: Path, networks: Any) -> None:
    name, _ = weight_of(networks, ending)
    before = torch.from_numpy(np.array(open_checkpoint(tiny).weights("unet")[f"{name}.weight"], np.float32))
    down, up, product = pair(before, 2)
    changed = before + product
    axis = 1 if form == "columns" else 0
    size = [1] * before.ndim
    size[axis] = before.shape[axis]
    magnitude = torch.rand(size) + 0.5
    norm = changed.pow(2).sum([a for a in range(before.ndim) if a != axis], keepdim=True).sqrt()
    key = f"unet.{name}" if form == "peft" else f"lora_unet_{name.replace('.', '_')}"
    state = rename_parts(
        {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up},
        *(("lora_A.weight", "lora_B.weight") if form == "peft" else ("lora_down.weight", "lora_up.weight")),
    )
    if form == "peft":
        shape = (before.shape[0],) if before.ndim == 2 else (1, before.shape[0], 1, 1)
        state[f"{key}.lora_magnitude_vector"] = magnitude.reshape(shape)
    else:
        state[f"{key}.dora_scale"] = magnitude
    for scale in (1.0, 0.25):
        wanted = scale * (magnitude * changed / norm - before)
        check(merged(tiny, tmp_path, state, scale=scale), tiny, {"unet": {name: wanted}})


@pytest.fixture(scope="module")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, UNet2DConditionModel]:
    """The UNet of SDXL in miniature as a checkpoint of its own."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64, 64), layers_per_block=2, cross_attention_dim=48,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 2], attention_head_dim=[1, 2, 2], use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sdxl")
    unet.save_pretrained(folder / "unet")
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    return folder, unet


#: Attention of SDXL in the original layout, by block, as sd-scripts' sdxl_original_unet.py numbers it.
ORIGINAL_ATTENTION = {
    "down_blocks_1_attentions_0": "input_blocks_4_1", "down_blocks_1_attentions_1": "input_blocks_5_1",
    "down_blocks_2_attentions_0": "input_blocks_7_1", "down_blocks_2_attentions_1": "input_blocks_8_1",
    "mid_block_attentions_0": "middle_block_1",
    "up_blocks_0_attentions_0": "output_blocks_0_1", "up_blocks_0_attentions_1": "output_blocks_1_1",
    "up_blocks_0_attentions_2": "output_blocks_2_1", "up_blocks_1_attentions_0": "output_blocks_3_1",
    "up_blocks_1_attentions_1": "output_blocks_4_1", "up_blocks_1_attentions_2": "output_blocks_5_1",
}  # fmt: skip


def test_names_of_sdxl_as_kohya_writes_them(
    tiny_sdxl: tuple[Path, UNet2DConditionModel], tmp_path: Path
) -> None:
    folder, unet = tiny_sdxl
    state: State = {}
    by_kohya: dict[str, Tensor] = {}
    for name, weight in modules(unet, TARGETS).items():
        spelled = name.replace(".", "_")
        for ours, theirs in ORIGINAL_ATTENTION.items():
            spelled = spelled.replace(ours, theirs)
        if "_attentions_" not in spelled and "_blocks_" in spelled and spelled != name.replace(".", "_"):
            down, up, by_kohya[name] = pair(weight, 2)
            key = f"lora_unet_{spelled}"
            state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    extra = {
        "input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "label_emb_0_2": "add_embedding.linear_2",
        "middle_block_2_out_layers_3": "mid_block.resnets.1.conv2",
        "out_2": "conv_out",
        "output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
        "output_blocks_6_0_skip_connection": "up_blocks.2.resnets.0.conv_shortcut",
        "time_embed_0": "time_embedding.linear_1",
    }
    for spelled, name in extra.items():
        down, up, by_kohya[name] = pair(unet.get_submodule(name).weight.detach(), 2)
        state |= {f"lora_unet_{spelled}.lora_down.weight": down, f"lora_unet_{spelled}.lora_up.weight": up}
    file = tmp_path / "xl.safetensors"
    save_file(state, file)
    weights = open_checkpoint(folder, components=["unet"], loras=[Lora(file)]).weights("unet")
    plain = open_checkpoint(folder, components=["unet"]).weights("unet")
    changed = {n.removesuffix(".weight") for n in plain if not np.array_equal(weights[n], plain[n])}
    assert changed == set(by_kohya)
    for name, product in by_kohya.items():
        np.testing.assert_allclose(
            weights[f"{name}.weight"], plain[f"{name}.weight"] + product.numpy(), 1e-4, 1e-5
        )
    attention = {n: t for n, t in state.items() if "attn" in n}
    mapped = _maybe_map_sgm_blocks_to_diffusers(dict(attention), unet.config)
    named, _ = _convert_non_diffusers_lora_to_diffusers(mapped)
    theirs = {
        n.removeprefix("unet.").replace(".processor", "").replace("to_out_lora", "to_out.0_lora")
        for n in named
    }
    theirs = {re.sub(r"_lora\.(down|up)\.weight$", "", n) for n in theirs}
    assert theirs == {n for n in by_kohya if "attn" in n}


def test_a_lora_of_another_base(tiny: Path, tmp_path: Path) -> None:
    key = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    state = {f"{key}.lora_down.weight": torch.zeros(2, 2048), f"{key}.lora_up.weight": torch.zeros(640, 2)}
    state |= {f"lora_te2_text_model_encoder_layers_0_mlp_fc1.{p}": torch.zeros(2, 2) for p in ("diff",)}
    with pytest.raises(WeightsMismatchError, match=rf"2 of 2 modules.*{key}.*it is for SDXL"):
        merged(tiny, tmp_path, state)


def test_a_lora_of_another_width(tiny: Path, tmp_path: Path, networks: Any) -> None:
    made = kohya(networks)
    name = next(n for n in made.state if n.endswith("attn1_to_q.lora_up.weight"))
    made.state[name] = torch.zeros(made.state[name].shape[0] + 1, made.state[name].shape[1])
    with pytest.raises(WeightsMismatchError, match=f"1 of .* modules.*{name.partition('.')[0]}"):
        merged(tiny, tmp_path, made.state)


def test_kinds_that_are_not_merged(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=r"1 tensors of another kind: .*oft_diag"):
        merged(tiny, tmp_path, {"lora_unet_conv_in.oft_diag": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="expected up of its low rank LoRA, got none"):
        merged(tiny, tmp_path, {"lora_unet_conv_in.lora_down.weight": torch.zeros(2, 36)})
    with pytest.raises(CheckpointError, match="finite scale"):
        Lora(tmp_path, float("nan"))
    with pytest.raises(CheckpointError, match="one number as alpha"):
        merged(
            tiny,
            tmp_path,
            {
                f"lora_unet_conv_in.{n}": torch.zeros(2, 2)
                for n in ("lora_down.weight", "lora_up.weight", "alpha")
            },
        )


def test_networks_that_were_not_opened_do_not_matter(tiny: Path, tmp_path: Path, networks: Any) -> None:
    file = tmp_path / "a.safetensors"
    save_file(kohya(networks).state, file)
    assert open_checkpoint(tiny, components=["vae_decoder"], loras=[Lora(file)]).components == (
        "vae_decoder",
    )
    assert open_checkpoint(tiny, components=["unet"], loras=[Lora(file)]).components == ("unet",)


def test_the_digest_knows_file_and_scale(
    tiny: Path, tmp_path: Path, networks: Any, digests: Callable[..., set[str]]
) -> None:
    file = tmp_path / "a.safetensors"
    save_file(kohya(networks).state, file)
    found = digests([], [Lora(file)], [Lora(file, 0.5)], [Lora(file), Lora(file)])
    other = tmp_path / "b.safetensors"
    save_file(kohya(networks).state, other)
    found |= digests([Lora(other)])
    assert len(found) == 5
    assert digests([Lora(file)], [Lora(file, 0.5)]) <= found


@pytest.fixture
def digests(tiny: Path) -> Callable[..., set[str]]:
    def find(*choices: list[Lora]) -> set[str]:
        return {open_checkpoint(tiny, components=["unet"], loras=loras).digest("unet") for loras in choices}

    return find
