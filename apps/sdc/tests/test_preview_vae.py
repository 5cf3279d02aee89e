"""A tiny VAE beside the model's own: converted, verified, and what previews are drawn by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sd_runtime import Pipeline, SettingsError, open_bundle
from sdc.commands.serve import open_studio

PROMPT = "a red circle on a blue background"
DRAW: Any = {"num_inference_steps": 2, "seed": 5, "rng": "torch"}


def make_taesd(**config: Any) -> Any:
    """Of the demo's latents, with weights that make colours of them."""
    import torch
    from diffusers import AutoencoderTiny

    torch.manual_seed(4)
    sizes = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    blocks = {"num_encoder_blocks": (1,) * 4, "num_decoder_blocks": (1,) * 4}
    made = AutoencoderTiny(**{**sizes, **blocks, **config})
    for parameter in made.decoder.parameters():
        parameter.data *= 2
    return made.half().float().eval()


@pytest.fixture(scope="module")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taesd") / "taesd"
    make_taesd().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def previewing(checkpoint: Path, converted: Path, taesd: Path, tmp_path_factory: Any) -> Path:
    """The demo with the tiny VAE beside; only that one is lowered here."""
    from sd_bundle import Provenance, new_bundle
    from sd_convert import KINDS, ConversionOptions, convert, open_checkpoint, with_preview_vae

    folder = tmp_path_factory.mktemp("previewing")
    opened, kinds = with_preview_vae(open_checkpoint(checkpoint, components=["text_encoder"]), taesd)
    only = ConversionOptions(components=("text_encoder", "preview_decoder"))
    convert(opened, folder / "alone", only, kinds=(*KINDS, *kinds))
    whole, alone = open_bundle(converted), open_bundle(folder / "alone")
    added = alone.only("preview_decoder")
    with new_bundle(
        folder / "bundle", whole.manifest.model, provenance=Provenance.now("demo", tools={})
    ) as draft:
        for component in (*whole.manifest.components, added):
            source = alone if component is added else whole
            target = draft.add_component(component)
            shutil.copytree(source.path / component.package, target)
        for file in converted.rglob("*"):
            relative = file.relative_to(converted)
            if file.is_file() and relative.parts[0] in ("tokenizer", "scheduler"):
                draft.copy_file(file, relative.as_posix())
    return folder / "bundle"


def expected(latent: Any) -> Any:
    """What diffusers' pipelines make of a latent with this VAE."""
    import torch

    with torch.no_grad():
        signed = make_taesd().decode(torch.from_numpy(latent)).sample
    return ((signed / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0) * 255).numpy()


def psnr(found: Any, wanted: Any) -> float:
    return float(10 * np.log10(255**2 / np.mean((np.asarray(found, float) - wanted) ** 2)))


def test_previews_are_those_of_the_tiny_vae(previewing: Path) -> None:
    pipeline = Pipeline.open(previewing, engine="portable", reduce_memory=True)
    for step in pipeline.steps(PROMPT, **DRAW):
        found, wanted = pipeline.preview(step.denoised), expected(step.denoised)
        assert np.std(wanted) > 5
        assert psnr(found, wanted) > 40
        assert set(pipeline.models.loaded) == {"unet", "preview_decoder"}  # the denoiser is not let go
    assert psnr(pipeline.preview(step.denoised, "vae"), wanted) < 25
    with pytest.raises(SettingsError, match="previews in rgb, whose colours are published"):
        pipeline.preview(step.denoised, "rgb")
    with pytest.raises(SettingsError, match="preview of tiny-vae, rgb, vae, got 'pixels'"):
        pipeline.preview(step.denoised, "pixels")


def test_generate_saves_them(sdc: Any, previewing: Path, tmp_path: Path) -> None:
    given = ("generate", PROMPT, "-i", previewing, "-o", tmp_path / "a.png", "--seed", 5, "--rng", "torch")
    done = sdc(*given, "--num-inference-steps", 2, "--save-every", 1, "--preview", "tiny-vae")
    assert done.status == 0, done.err
    first = next(iter(Pipeline.open(previewing, engine="portable").steps(PROMPT, **DRAW)))
    with Image.open(tmp_path / "a-step-001.png") as saved:
        assert psnr(saved, expected(first.denoised)) > 40
    done = sdc(*given, "--preview", "tiny-vae")
    assert done.status == 2
    assert "--save-every with --preview" in done.err


def test_the_server_shows_them(previewing: Path) -> None:
    studio = open_studio(previewing, engine="portable", preview="tiny-vae")
    seen: list[Any] = []

    def look(_: Any) -> None:
        seen.append((studio.progress.latent, studio.preview()))

    studio.draw(studio.sizes[0], {"prompt": PROMPT, **DRAW}, 1, look)
    ((latent, preview),) = seen
    assert psnr(preview, expected(latent)) > 40


@pytest.mark.parametrize(("how", "said"), [("tiny-vae", "--preview-vae"), ("rgb", "are published")])
def test_a_bundle_without_one(sdc: Any, converted: Path, tmp_path: Path, how: str, said: str) -> None:
    out = tmp_path / "a.png"
    for command in (
        ("generate", PROMPT, "-i", converted, "-o", out, "--save-every", 1),
        ("serve", converted),
    ):
        done = sdc(*command, "--preview", how)
        assert done.status == 1
        assert said in done.err
    assert not out.exists()


def test_converted_and_verified_by_the_commands(
    sdc: Any, checkpoint: Path, taesd: Path, tmp_path: Path
) -> None:
    done = sdc(
        *("convert", checkpoint, "-o", tmp_path / "b", "--preview-vae", taesd, "--no-cache", "--json"),
        *("--components", "text_encoder,preview_decoder", "--check-output-correctness"),
    )
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert [each["name"] for each in found["components"]] == ["text_encoder", "preview_decoder"]
    (row,) = [each for each in found["verification"]["rows"] if each["component"] == "preview_decoder"]
    assert row["psnr"] > 40
    component = open_bundle(tmp_path / "b").only("preview_decoder")
    assert [port.name for port in (*component.inputs, *component.outputs)] == ["z", "image"]
    done = sdc("verify", tmp_path / "b", "--against", checkpoint)
    assert done.status == 2
    assert "expected --preview-vae for preview_decoder" in done.err


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"latent_channels": 16}, "with latent_channels 4, got 16"),
        ({"scaling_factor": 0.5}, "with scaling_factor 1.0, got 0.5"),
        (
            {"encoder_block_out_channels": (8,) * 3, "decoder_block_out_channels": (8,) * 3},
            "latent's 8, got 4",
        ),
    ],
)
def test_tiny_vaes_of_other_latents(
    sdc: Any, checkpoint: Path, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    blocks = len(config.get("encoder_block_out_channels", (8,) * 4))
    counts = {"num_encoder_blocks": (1,) * blocks, "num_decoder_blocks": (1,) * blocks}
    make_taesd(**{**counts, **config}).save_pretrained(tmp_path / "other")
    done = sdc(
        *("convert", checkpoint, "-o", tmp_path / "b", "--preview-vae", tmp_path / "other", "--dry-run"),
        *("--components", "text_encoder,preview_decoder"),
    )
    assert done.status == 1
    assert said in done.err
    own = sdc("convert", checkpoint, "-o", tmp_path / "b", "--preview-vae", checkpoint, "--dry-run")
    assert "_class_name AutoencoderTiny, got AutoencoderKL" in own.err


def test_resources_leave_it_out(previewing: Path) -> None:
    from sdc.resources.names import resources

    assert {each.name for each in resources(open_bundle(previewing))} >= {"VAEDecoder", "Unet"}
