"""The options that say what a checkpoint is made of."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sdc.sources import parse_embedding, parse_lora


@pytest.mark.parametrize(
    ("text", "file", "scales"),
    [
        ("a.safetensors", "a.safetensors", (1.0, None)),
        ("a.safetensors:0.5", "a.safetensors", (0.5, None)),
        ("dir/a:b.safetensors:-1:.25", "dir/a:b.safetensors", (-1.0, 0.25)),
        ("C:\\loras\\a.safetensors:2", "C:\\loras\\a.safetensors", (2.0, None)),
        ("org/name/a.safetensors:1e-1", "org/name/a.safetensors", (0.1, None)),
    ],
)
def test_scales_of_a_lora(text: str, file: str, scales: tuple[float, float | None]) -> None:
    lora = parse_lora(text)
    assert (lora.file, lora.scale, lora.text_scale) == (Path(file), *scales)


def test_name_and_file_of_an_embedding() -> None:
    embedding = parse_embedding("style=a=b.safetensors")
    assert (embedding.name, embedding.file) == ("style", Path("a=b.safetensors"))
    with pytest.raises(click.BadParameter, match="NAME=FILE"):
        parse_embedding("style.safetensors")


@pytest.fixture
def lora(checkpoint: Path, tmp_path: Path) -> Path:
    """Of the last layer of the demo checkpoint's UNet."""
    file = next((checkpoint / "unet").glob("*.safetensors"))
    name, weight = next((n, w) for n, w in load_file(file).items() if n == "conv_out.weight")
    key = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
    rows, columns = weight.shape[0], weight[0].size
    draw = np.random.default_rng(0).standard_normal
    parts = {"down": draw((2, columns)).reshape(2, *weight.shape[1:]), "up": draw((rows, 2, 1, 1))}
    path = tmp_path / "lora.safetensors"
    save_file({f"{key}.lora_{part}.weight": array.astype(np.float32) for part, array in parts.items()}, path)
    return path


def test_a_lora_is_in_the_bundle_and_verified(sdc, checkpoint: Path, lora: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    unet = ("convert", checkpoint, "-o", bundle, "--components", "unet")
    assert sdc(*unet, "--lora", f"{lora}:0.5").status == 0
    assert sdc("verify", bundle, "--against", checkpoint, "--lora", f"{lora}:0.5").status == 0
    assert sdc("verify", bundle, "--against", checkpoint).status == 1


@pytest.mark.parametrize(
    ("file", "options", "recipe"),
    [
        ("Hyper-SD15-8steps-lora.safetensors", (), "hyper-sd-8"),
        ("Hyper-SD15-8steps-lora.safetensors", ("--recipe", "tcd"), "tcd"),
        ("Hyper-SD15-8steps-lora.safetensors", ("--recipe", "none"), "none"),
        ("style.safetensors", (), None),
        ("style.safetensors", ("--recipe", "lightning-4"), "lightning-4"),
    ],
)
def test_how_a_bundle_is_to_be_sampled(
    sdc, checkpoint: Path, lora: Path, tmp_path: Path, file: str, options: tuple[str, ...], recipe: str | None
) -> None:
    """By the name of the LoRA, or as is said; the manifest has it, and the settings of a picture follow."""
    from sd_bundle import open_bundle
    from sd_runtime import Pipeline

    bundle, named = tmp_path / "bundle", lora.rename(lora.with_name(file))
    done = sdc("convert", checkpoint, "-o", bundle, "--components", "unet", "--lora", named, *options)
    assert done.status == 0, done.err
    assert open_bundle(bundle).manifest.model.recipe == recipe
    assert (f"recipe hyper-sd-8, by the name of {file}" in done.out) is (recipe == "hyper-sd-8")
    settings = Pipeline.open(bundle).settings("a")
    assert settings.recipe == (None if recipe == "none" else recipe)
    if recipe == "hyper-sd-8":
        chosen = (settings.scheduler, settings.spacing, settings.num_inference_steps, settings.guidance_scale)
        assert chosen == ("ddim", "trailing", 8, 0.0)


def test_a_recipe_that_nobody_knows(sdc, checkpoint: Path, tmp_path: Path) -> None:
    done = sdc("convert", checkpoint, "-o", tmp_path / "b", "--recipe", "telepathy")
    assert done.status == 2
    assert "--recipe: expected one of lcm, " in done.err


def test_what_was_assumed_is_said(sdc, checkpoint: Path, tmp_path: Path) -> None:
    done = sdc("convert", checkpoint, "-o", tmp_path / "b", "--custom-vae-version", tmp_path / "nowhere")
    assert done.status == 1
    assert "nowhere: expected a .safetensors file, a folder or a hub id, got nothing there" in done.err


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt"])
def test_pickles_are_refused_with_what_to_do(name: str, sdc, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80\x02}q\x00.")
    done = sdc("convert", tmp_path / name, "-o", tmp_path / "bundle")
    assert done.status == 1
    assert len(done.err.strip().splitlines()) == 1
    assert "can run code" in done.err
    assert "weights_only=True" in done.err
