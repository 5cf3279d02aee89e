"""Which files a checkpoint is read from, and what is said about those that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sd_convert import (
    CheckpointError,
    CheckpointNotFoundError,
    IncompleteCheckpointError,
    NotACheckpointError,
    OptionsError,
    UnsafeWeightsError,
    UnsupportedArchitectureError,
    VariantError,
    open_checkpoint,
)
from sd_convert.checkpoint.variants import choose_variant

UNET_FP16 = "diffusion_pytorch_model.fp16.safetensors"


def test_all_four_components_of_a_folder(tiny: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    assert checkpoint.name == "tiny"
    assert checkpoint.components == ("text_encoder", "unet", "vae_decoder", "vae_encoder")
    assert checkpoint.variants == {"text_encoder": "fp16", "unet": "fp16", "vae": "fp16"}
    assert {file.name for file in checkpoint.tokenizers["tokenizer"]} == {
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
    }
    assert checkpoint.config("unet")["sample_size"] == 8


def test_only_what_is_asked_for_needs_to_be_there(tiny: Path) -> None:
    shutil.rmtree(tiny / "text_encoder")
    (tiny / "vae" / UNET_FP16).unlink()
    assert open_checkpoint(tiny, components=["unet"]).components == ("unet",)


def test_weights_of_a_component_that_was_not_asked_for(tiny: Path) -> None:
    with pytest.raises(IncompleteCheckpointError, match="unet"):
        open_checkpoint(tiny, components=["vae_decoder"]).weights("unet")


@pytest.mark.parametrize(
    ("dtype", "variant", "shard"),
    [(torch.float32, None, "1GB"), (torch.bfloat16, "bf16", "1GB"), (torch.float16, "fp16", "100KB")],
)
def test_every_way_to_save_gives_the_same_weights(
    dtype: torch.dtype, variant: str | None, shard: str, tmp_path: Path, tiny_models: Any
) -> None:
    folder = tiny_models.save(tmp_path / "saved", dtype=dtype, variant=variant, shard=shard)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.variants["unet"] == (variant or "")
    assert (len(checkpoint.sources["unet"].files) > 1) == (shard == "100KB")
    weights = checkpoint.weights("unet")
    for name, tensor in tiny_models.unet.state_dict().items():
        np.testing.assert_allclose(weights[name], tensor.numpy(), rtol=1e-2, atol=1e-3)


RULES = [
    (["model.fp16.safetensors", "model.safetensors", "model.non_ema.safetensors"], None, "fp16"),
    (["model.safetensors", "model.non_ema.safetensors"], None, ""),
    (["model.bf16.safetensors"], None, "bf16"),
    (["model.fp16.safetensors", "model.safetensors"], "", ""),
    (["model.fp16.safetensors", "model.non_ema.safetensors"], "non_ema", "non_ema"),
    (["model.safetensors", "model.fp16.bin", "openvino_model.bin"], None, ""),
    (["model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"], None, "fp16"),
    (["model.fp16.safetensors.index.json", "model-00001-of-00002.fp16.safetensors"], None, "fp16"),
]


@pytest.mark.parametrize(("names", "asked", "chosen"), RULES)
def test_the_rule_that_chooses_a_variant(names: list[str], asked: str | None, chosen: str) -> None:
    variant, file = choose_variant(names, variant=asked, where="unet")
    assert (variant, file in names) == (chosen, True)


def test_two_variants_without_a_rule_are_named() -> None:
    names = ["model.ema.safetensors", "model.non_ema.safetensors"]
    with pytest.raises(VariantError, match=r"'ema' .*'non_ema' .*variant="):
        choose_variant(names, variant=None, where="unet")


def test_a_variant_that_is_not_there_names_those_that_are(tiny: Path) -> None:
    with pytest.raises(VariantError, match=r"'bf16'.*'fp16'"):
        open_checkpoint(tiny, variant="bf16")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="nothing there"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointNotFoundError, match="nothing there"):
        open_checkpoint(str(tmp_path / "nowhere"))


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpointError, match=r"model_index\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "error", "reason"),
    [
        ("a.ckpt", UnsafeWeightsError, "can run code when it is read.*save_file"),
        ("a.pt", UnsafeWeightsError, "can run code when it is read.*save_file"),
        ("a.safetensors", IncompleteCheckpointError, "got 1 bytes"),
        ("a.gguf", NotACheckpointError, "a checkpoint folder or a .safetensors file, got another file"),
    ],
)
def test_a_single_file(name: str, error: type[Exception], reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(error, match=reason):
        open_checkpoint(tmp_path / name)


def drop_folder(tiny: Path) -> None:
    shutil.rmtree(tiny / "unet")


def drop_weights(tiny: Path) -> None:
    (tiny / "unet" / UNET_FP16).unlink()


def leave_incomplete(tiny: Path) -> None:
    (tiny / "unet" / UNET_FP16).rename(tiny / "unet" / f"{UNET_FP16}.incomplete")


def leave_incomplete_in_cache(tiny: Path) -> None:
    place = tiny / ".cache/huggingface/download/unet"
    place.mkdir(parents=True)
    (tiny / "unet" / UNET_FP16).rename(place / "abc.incomplete")


def truncate_weights(tiny: Path) -> None:
    path = tiny / "unet" / UNET_FP16
    path.write_bytes(path.read_bytes()[:-100])


def put_lfs_pointer(tiny: Path) -> None:
    (tiny / "unet" / UNET_FP16).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )


def put_lfs_pointer_as_index(tiny: Path) -> None:
    (tiny / "model_index.json").write_text("version https://git-lfs.github.com/spec/v1\n")


def truncate_config(tiny: Path) -> None:
    path = tiny / "unet/config.json"
    path.write_text(path.read_text()[:50])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_folder, "folder of that name"),
        (drop_weights, "expected .safetensors weights, got none"),
        (leave_incomplete, "not finished"),
        (leave_incomplete_in_cache, "not finished"),
        (truncate_weights, "truncated"),
        (put_lfs_pointer, "git lfs pull"),
        (put_lfs_pointer_as_index, "git lfs pull"),
        (truncate_config, "expected JSON"),
    ],
)
def test_a_half_downloaded_checkpoint(damage: Callable[[Path], None], said: str, tiny: Path) -> None:
    damage(tiny)
    with pytest.raises(IncompleteCheckpointError, match=said) as caught:
        open_checkpoint(tiny)
    assert "\n" not in str(caught.value)


def test_a_missing_shard(tmp_path: Path, tiny_models: Any) -> None:
    folder = tiny_models.save(tmp_path / "saved", shard="100KB")
    next(folder.glob("unet/*-00002-of-*")).unlink()
    with pytest.raises(IncompleteCheckpointError, match="00002-of-"):
        open_checkpoint(folder)


def test_shards_without_their_index(tmp_path: Path, tiny_models: Any) -> None:
    folder = tiny_models.save(tmp_path / "saved", shard="100KB")
    next(folder.glob("unet/*.index.*")).unlink()
    with pytest.raises(IncompleteCheckpointError, match="index beside the shards"):
        open_checkpoint(folder)


@pytest.mark.parametrize("shard", ["../../secret.safetensors", "/etc/passwd", "a.bin"])
def test_an_index_that_points_elsewhere(shard: str, tiny: Path) -> None:
    (tiny / "unet" / UNET_FP16).unlink()
    index = tiny / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError, match="same folder"):
        open_checkpoint(tiny)


def test_pickled_weights_are_never_read(tiny: Path) -> None:
    (tiny / "unet" / UNET_FP16).rename(tiny / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UnsafeWeightsError, match=r"diffusion_pytorch_model\.bin"):
        open_checkpoint(tiny)


def test_a_component_that_the_checkpoint_lacks(tiny: Path) -> None:
    index = json.loads((tiny / "model_index.json").read_text())
    (tiny / "model_index.json").write_text(json.dumps(index | {"text_encoder": [None, None]}))
    assert "text_encoder" not in open_checkpoint(tiny).components
    with pytest.raises(IncompleteCheckpointError, match="text_encoder"):
        open_checkpoint(tiny, components=["text_encoder"])


def test_an_unknown_component(tiny: Path) -> None:
    with pytest.raises(OptionsError, match=r"unet.*got 'umet'"):
        open_checkpoint(tiny, components=["umet"])


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": "StableDiffusionDepth2ImgPipeline"},
        {"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]},
        {"_class_name": "FluxPipeline"},
        {"_class_name": ["pipeline", "Custom"]},
        {"_class_name": None},
    ],
)
def test_pipelines_of_another_family(change: dict[str, object], tiny: Path) -> None:
    path = tiny / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        UnsupportedArchitectureError, match=r"model_index\.json.*supported: Stable Diffusion 1"
    ):
        open_checkpoint(tiny)


def test_sdxl_as_it_is_saved(reference: Path) -> None:
    checkpoint = open_checkpoint(reference / "tiny-sdxl")
    assert checkpoint.components == ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
    assert set(checkpoint.tokenizers) == {"tokenizer", "tokenizer_2"}
    assert checkpoint.config("model_index")["force_zeros_for_empty_prompt"] is True
