"""New weights in the programs of a bundle: what a full conversion writes, without what it takes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sd_bundle import open_bundle
from sd_convert import (
    ConversionOptions,
    LikeError,
    Likeness,
    Lora,
    OptionsError,
    convert,
    open_checkpoint,
)

pytestmark = pytest.mark.long

#: Neither may be imported where only weights are new.
BLOCKED = ("torch", "coremltools", "diffusers", "transformers")
OPTIONS = ConversionOptions(
    attention_implementation="SPLIT_EINSUM_V2", latent_width=16, target="iOS17", unet_batch_one=True
)


@pytest.fixture(scope="module")
def like(_tiny_fp16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with options of its own."""
    path = tmp_path_factory.mktemp("like") / "bundle"
    convert(open_checkpoint(_tiny_fp16), path, OPTIONS)
    return path


@pytest.fixture
def tuned(tiny: Path) -> Path:
    """The checkpoint with every number another one."""
    generator = np.random.default_rng(1)
    for file in tiny.rglob("*.safetensors"):
        tensors = load_file(file)
        for name, array in tensors.items():
            tensors[name] = array + generator.normal(0, 0.01, array.shape).astype(array.dtype)
        save_file(tensors, file)
    return tiny


def contents(bundle: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(bundle)): file.read_bytes()
        for file in bundle.rglob("*")
        if file.is_file() and file.name != "manifest.json"  # has the time of the conversion
    }


def block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail on any import of what is blocked, however it was imported before."""
    for name in list(sys.modules):
        if name.partition(".")[0] in BLOCKED:
            monkeypatch.delitem(sys.modules, name)
    for name in BLOCKED:
        monkeypatch.setitem(sys.modules, name, None)


def test_only_weights_are_new_and_nothing_heavy_is_imported(
    like: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(open_checkpoint(tuned), tmp_path / "full", OPTIONS)
    with monkeypatch.context() as patched:
        block(patched)
        report = convert(open_checkpoint(tuned), tmp_path / "quick", like=Likeness.of(like))
    assert {part.program for part in report.components} == {str(like)}
    assert contents(tmp_path / "quick") == contents(tmp_path / "full")
    ours, theirs = (open_bundle(tmp_path / name).manifest for name in ("quick", "full"))
    assert (ours.model, ours.components) == (theirs.model, theirs.components)
    assert contents(tmp_path / "quick") != contents(like)


def test_a_lora_and_a_bundle_that_is_like_another(
    like: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = np.full((2, 64), 0.1, np.float32), np.full((64, 2), 0.1, np.float32)
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "lora.safetensors")
    mix = open_checkpoint(tiny, components=["unet"], loras=[Lora(tmp_path / "lora.safetensors", 0.5)])
    block(monkeypatch)
    convert(mix, tmp_path / "first", like=Likeness.of(like), options=ConversionOptions(components=("unet",)))
    convert(mix, tmp_path / "again", like=Likeness.of(tmp_path / "first"))
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    merged = open_bundle(tmp_path / "again").manifest.provenance.weights
    assert merged is not None
    assert len(merged.loras) == 1


@pytest.mark.parametrize(
    ("folder", "values", "said"),
    [
        ("unet", {"attention_head_dim": 8}, r"unet: config\.attention_head_dim: expected 4, .*, got 8"),
        ("unet", {"act_fn": "relu"}, r"unet: config\.act_fn: expected 'silu'"),
        ("text_encoder", {"hidden_act": "gelu"}, r"text_encoder: config\.hidden_act: expected 'quick_gelu'"),
        ("vae", {"norm_num_groups": 4}, r"vae_decoder: config\.norm_num_groups: expected 8"),
        ("unet", {"in_channels": 9}, r"the model: task: expected 'text-to-image'"),
    ],
)
def test_the_first_difference_is_named(
    folder: str,
    values: dict[str, Any],
    said: str,
    like: Path,
    edit_config: Callable[..., Path],
    tmp_path: Path,
) -> None:
    changed = open_checkpoint(edit_config(folder, **values))
    with pytest.raises(LikeError, match=said):
        convert(changed, tmp_path / "bundle", like=Likeness.of(like))
    assert not (tmp_path / "bundle").exists()


def test_tensors_of_another_shape(like: Path, tiny: Path, tmp_path: Path) -> None:
    file = tiny / "text_encoder/model.fp16.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    tensors[name] = np.concatenate([tensors[name], tensors[name][:1]])
    save_file(tensors, file)
    with pytest.raises(
        LikeError, match=r"token_embedding\.weight: expected \[190, 32\], .*, got \[191, 32\]"
    ):
        convert(open_checkpoint(tiny), tmp_path / "bundle", like=Likeness.of(like))


def test_weights_that_need_another_arithmetic(like: Path, tiny: Path, tmp_path: Path) -> None:
    file = tiny / "vae/diffusion_pytorch_model.fp16.safetensors"
    tensors = load_file(file)
    for name in ("decoder.conv_in.weight", "decoder.conv_in.bias"):
        tensors[name] = (tensors[name].astype(np.float32) * 1e5).astype(np.float16)
    save_file(tensors, file)
    with pytest.raises(LikeError, match=r"vae_decoder: expected weights for float16, .* \(activations reach"):
        convert(open_checkpoint(tiny), tmp_path / "bundle", like=Likeness.of(like))
    assert list(tmp_path.glob("bundle*")) == []


def test_options_that_the_bundle_says(like: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(LikeError, match="latent_height: expected none beside the bundle"):
        convert(
            open_checkpoint(tiny), tmp_path / "b", ConversionOptions(latent_height=8), like=Likeness.of(like)
        )
    with pytest.raises(OptionsError, match="components"):
        convert(open_checkpoint(tiny, components=["unet"]), tmp_path / "b", like=Likeness.of(like))


def edited(bundle: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    copy = Path(shutil.copytree(bundle, tmp_path / "edited"))
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_compressed_weights_follow_from_all_of_them(like: Path, tiny: Path, tmp_path: Path) -> None:
    def compress(manifest: dict[str, Any]) -> None:
        manifest["components"][1]["compression"] = {
            "methods": ["palettization"],
            "bits_per_weight": 6.0,
            "recipe": None,
        }

    with pytest.raises(LikeError, match="unet: expected weights as they are, got palettization to 6 bits"):
        convert(open_checkpoint(tiny), tmp_path / "b", like=Likeness.of(edited(like, tmp_path, compress)))


def test_a_bundle_that_holds_no_programs(like: Path, tuned: Path, tmp_path: Path) -> None:
    """As those of before: they are lowered anew, and the report says so."""
    names = [str(file.relative_to(like)) for file in (like / "programs").iterdir()]

    def forget(manifest: dict[str, Any]) -> None:
        for name in names:
            del manifest["files"][name]

    old = edited(like, tmp_path, forget)
    shutil.rmtree(old / "programs")
    checkpoint = open_checkpoint(tuned, components=["text_encoder"])
    options = ConversionOptions(components=("text_encoder",))
    report = convert(checkpoint, tmp_path / "new", options, like=Likeness.of(old))
    assert [part.program for part in report.components] == [None]
