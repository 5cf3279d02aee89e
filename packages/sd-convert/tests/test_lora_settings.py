"""What a LoRA file says besides its tensors, by the rules of the libraries that write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sd_convert import CheckpointError, Lora, UnsupportedArchitectureError, open_checkpoint

RANK = 4
UNET, TEXT = "attn1.to_k", "self_attn.q_proj"


def found(tiny: Path, folder: str, ending: str) -> tuple[str, np.ndarray[Any, Any]]:
    weights = open_checkpoint(tiny).weights(folder)
    name = next(name for name in weights if name.endswith(f"{ending}.weight"))
    return name.removesuffix(".weight"), np.array(weights[name], np.float32)


def pair(weight: np.ndarray[Any, Any], seed: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray[Any, Any]]:
    """Down, up, and their product."""
    made = torch.Generator().manual_seed(seed)
    down = torch.randn(RANK, weight.shape[1], generator=made) / 8
    up = torch.randn(weight.shape[0], RANK, generator=made) / 8
    return down, up, (up @ down).numpy()


def merged(tiny: Path, file: Path, folder: str, module: str) -> np.ndarray[Any, Any]:
    return np.asarray(open_checkpoint(tiny, loras=[Lora(file)]).weights(folder)[f"{module}.weight"])


@pytest.mark.parametrize(
    ("patterns", "alpha"),
    [
        ({".*attn1.to_k": 32}, 32),
        ({"^down_blocks.*to_k": 16}, 16),
        ({"to_k": 12, ".*": 99}, 12),
        ({".*": 24, "to_k": 12}, 24),
        ({"to_q|to_k": 20}, 20),
        ({"to_k.*x": 32, "o_k": 32}, 8),
    ],
    ids=str,
)
def test_alpha_patterns_are_expressions_and_the_first_counts(
    patterns: dict[str, int], alpha: int, tiny: Path, tmp_path: Path
) -> None:
    module, weight = found(tiny, "unet", UNET)
    down, up, product = pair(weight, 0)
    names = (f"base_model.model.{module}.lora_{part}.weight" for part in "AB")
    save_file(dict(zip(names, (down, up), strict=True)), tmp_path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "alpha_pattern": patterns}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    got = merged(tiny, tmp_path, "unet", module)
    np.testing.assert_allclose(got, weight + alpha / RANK * product, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", ["(", "(a+)+", ".*.*.*.*.*", "a{1,9}{1,9}"])
def test_patterns_that_are_none_or_never_end(pattern: str, tiny: Path, tmp_path: Path) -> None:
    module, weight = found(tiny, "unet", UNET)
    down, up, _ = pair(weight, 0)
    metadata = {"lora_adapter_metadata": json.dumps({"unet.alpha_pattern": {pattern: 1}})}
    names = (f"unet.{module}.lora_{part}.weight" for part in "AB")
    save_file(dict(zip(names, (down, up), strict=True)), tmp_path / "l.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match="alpha_pattern"):
        open_checkpoint(tiny, loras=[Lora(tmp_path / "l.safetensors")])


def test_rank_stabilisation_of_one_network_is_not_the_others(tiny: Path, tmp_path: Path) -> None:
    unet, text = found(tiny, "unet", UNET), found(tiny, "text_encoder", TEXT)
    state, products = {}, []
    for folder, (module, weight) in (("unet", unet), ("text_encoder", text)):
        down, up, product = pair(weight, len(products))
        inner = module if folder == "unet" else f"text_model.{module.removeprefix('text_model.')}"
        state |= {f"{folder}.{inner}.lora_A.weight": down, f"{folder}.{inner}.lora_B.weight": up}
        products.append(product)
    settings = {"unet.lora_alpha": 8, "unet.use_rslora": True, "text_encoder.lora_alpha": 4}
    metadata = {"lora_adapter_metadata": json.dumps(settings | {"text_encoder.use_rslora": False})}
    save_file(state, tmp_path / "l.safetensors", metadata=metadata)
    for (folder, (module, weight)), change in zip(
        (("unet", unet), ("text_encoder", text)), (8 / RANK**0.5 * products[0], products[1]), strict=True
    ):
        got = merged(tiny, tmp_path / "l.safetensors", folder, module)
        np.testing.assert_allclose(got, weight + change, rtol=1e-4, atol=1e-5)


def test_two_spellings_of_a_module_both_change_it(tiny: Path, tmp_path: Path) -> None:
    module, weight = found(tiny, "unet", UNET)
    (down, up, one), (other_down, other_up, other) = pair(weight, 0), pair(weight, 1)
    key = f"lora_unet_{module.replace('.', '_')}"
    state = {
        f"{key}.lora_down.weight": down,
        f"{key}.lora_up.weight": up,
        f"unet.{module}.lora_A.weight": other_down,
        f"unet.{module}.lora_B.weight": other_up,
    }
    save_file(state, tmp_path / "l.safetensors")
    got = merged(tiny, tmp_path / "l.safetensors", "unet", module)
    np.testing.assert_allclose(got, weight + one + other, rtol=1e-4, atol=1e-5)


def test_two_adapters_in_a_file_are_refused(tiny: Path, tmp_path: Path) -> None:
    module, weight = found(tiny, "unet", UNET)
    state = {}
    for seed, adapter in enumerate(("default", "style")):
        down, up, _ = pair(weight, seed)
        state[f"unet.{module}.lora_A.{adapter}.weight"] = down
        state[f"unet.{module}.lora_B.{adapter}.weight"] = up
    save_file(state, tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match="two adapters"):
        open_checkpoint(tiny, loras=[Lora(tmp_path / "l.safetensors")])


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.uint8, torch.float64, torch.float16, torch.bfloat16]
)
@pytest.mark.parametrize("shape", [(), (1,)])
def test_alpha_is_one_number_of_any_kind(
    dtype: torch.dtype, shape: tuple[int, ...], tiny: Path, tmp_path: Path
) -> None:
    module, weight = found(tiny, "unet", UNET)
    down, up, product = pair(weight, 0)
    key = f"lora_unet_{module.replace('.', '_')}"
    alpha = torch.full(shape, 2, dtype=dtype)
    state = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": alpha}
    save_file(state, tmp_path / "l.safetensors")
    got = merged(tiny, tmp_path / "l.safetensors", "unet", module)
    np.testing.assert_allclose(got, weight + 2 / RANK * product, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("setting", [{"init_lora_weights": "pissa_niter_4"}, {"fan_in_fan_out": True}])
def test_settings_that_mean_another_change(setting: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    module, weight = found(tiny, "unet", UNET)
    down, up, _ = pair(weight, 0)
    names = (f"base_model.model.{module}.lora_{part}.weight" for part in "AB")
    save_file(dict(zip(names, (down, up), strict=True)), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": RANK, **setting}))
    with pytest.raises(UnsupportedArchitectureError, match=next(iter(setting))):
        open_checkpoint(tiny, loras=[Lora(tmp_path)])
