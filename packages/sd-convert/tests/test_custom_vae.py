"""Another VAE in place of the checkpoint's: from a folder, a checkpoint, a single file of either layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file
from sd_convert import (
    CheckpointNotFoundError,
    ConversionOptions,
    IncompleteCheckpointError,
    NotACheckpointError,
    UnsafeWeightsError,
    UnsupportedArchitectureError,
    build_component,
    open_checkpoint,
)

OPTIONS = ConversionOptions(latent_height=8, latent_width=8)


@pytest.fixture(scope="module")
def other() -> AutoencoderKL:
    torch.manual_seed(5)
    return AutoencoderKL(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=2,
        up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5,
    ).eval()  # fmt: skip


def original(vae: AutoencoderKL) -> dict[str, torch.Tensor]:
    """In CompVis' layout; written for two blocks."""
    result = {}
    for name, tensor in vae.state_dict().items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        for block in (0, 1):
            new = new.replace(f"down_blocks.{block}.resnets", f"down.{block}.block")
            new = new.replace(f"up_blocks.{block}.resnets", f"up.{1 - block}.block")
            new = new.replace(f"down_blocks.{block}.downsamplers.0", f"down.{block}.downsample")
            new = new.replace(f"up_blocks.{block}.upsamplers.0", f"up.{1 - block}.upsample")
        for ours, theirs in (
            ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
            ("to_out.0", "proj_out"),
            ("mid_block.attentions.0", "mid.attn_1"), ("group_norm", "norm"), (".to_", "."),
        ):  # fmt: skip
            new = new.replace(ours, theirs)
        result[new] = (
            tensor[:, :, None, None].contiguous() if "attn_1" in new and tensor.ndim == 2 else tensor
        )
    return result


def save(vae: AutoencoderKL, form: str, folder: Path) -> Path:
    if form == "folder":
        vae.save_pretrained(folder / "alone")
        return folder / "alone"
    if form == "checkpoint":
        vae.save_pretrained(folder / "whole" / "vae")
        return folder / "whole"
    state = vae.state_dict() if form == "diffusers file" else original(vae)
    prefix = "first_stage_model." if form == "file with a prefix" else ""
    save_file({f"{prefix}{name}": tensor for name, tensor in state.items()}, folder / "vae.safetensors")
    return folder / "vae.safetensors"


FORMS = ["folder", "checkpoint", "diffusers file", "original file", "file with a prefix"]


@pytest.mark.parametrize("form", FORMS)
def test_both_halves_are_those_of_the_other(
    form: str, other: AutoencoderKL, tiny: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(tiny, vae=save(other, form, tmp_path))
    weights = checkpoint.weights("vae_decoder")
    for name, tensor in other.state_dict().items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())
    # a file does not say its factor, and its latents mean what those of the one it replaces mean
    factor = (
        0.5 if form in ("folder", "checkpoint") else open_checkpoint(tiny).config("vae")["scaling_factor"]
    )
    assert checkpoint.config("vae")["scaling_factor"] == factor
    for half in ("vae_decoder", "vae_encoder"):
        component = build_component(half, checkpoint, OPTIONS)
        state = {n: torch.from_numpy(np.array(component.weights[n])) for n in component.module.state_dict()}
        component.module.load_state_dict(state, assign=True)
        inputs = torch.randn(component.inputs[0].shape)
        with torch.no_grad():
            expected = other.decode(inputs).sample if half == "vae_decoder" else other.encoder(inputs)
            got = component.module(inputs)[0]
            expected = expected if half == "vae_decoder" else other.quant_conv(expected)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def leftovers(vae: AutoencoderKL) -> dict[str, torch.Tensor]:
    """As CompVis' AutoencoderKL saves itself: with the loss, and averages that are not the weights."""
    names = (
        "loss.logvar",
        "logvar",
        "loss.perceptual_loss.lin0.model.1.weight",
        "discriminator.main.0.weight",
    )
    loss = {name: torch.randn(2) for name in (*names, "loss.discriminator.main.0.bias", "model_ema.decay")}
    counts = {"loss.discriminator.main.3.num_batches_tracked": torch.tensor(7)}
    averages = {f"model_ema.{n.replace('.', '')}": torch.full_like(t, 9) for n, t in original(vae).items()}
    return loss | counts | averages


@pytest.mark.parametrize("form", ["original file", "file with a prefix", "diffusers file", "folder"])
def test_what_training_left(form: str, other: AutoencoderKL, tiny: Path, tmp_path: Path) -> None:
    place = save(other, form, tmp_path)
    file = place if place.is_file() else place / "diffusion_pytorch_model.safetensors"
    prefix = "first_stage_model." if form == "file with a prefix" else ""
    beside = {f"{prefix}{name}": tensor for name, tensor in leftovers(other).items()}
    save_file(load_file(file) | beside, file)
    checkpoint = open_checkpoint(tiny, vae=place)
    for half in ("vae_decoder", "vae_encoder"):
        component = build_component(half, checkpoint, OPTIONS)
        for name in component.module.state_dict():
            np.testing.assert_array_equal(component.weights[name], other.state_dict()[name].numpy())


def test_a_tensor_that_is_no_leftover(other: AutoencoderKL, tiny: Path, tmp_path: Path) -> None:
    file = save(other, "original file", tmp_path)
    save_file({**load_file(file), "quantize.embedding.weight": torch.zeros(2)}, file)
    with pytest.raises(UnsupportedArchitectureError, match=r"quantize\.embedding"):
        open_checkpoint(tiny, vae=file)


def test_a_decoder_alone(other: AutoencoderKL, tiny: Path, tmp_path: Path) -> None:
    state = {n: t for n, t in original(other).items() if n.startswith(("decoder.", "post_quant"))}
    save_file(state, tmp_path / "half.safetensors")
    checkpoint = open_checkpoint(tiny, components=["vae_decoder"], vae=tmp_path / "half.safetensors")
    build_component("vae_decoder", checkpoint, OPTIONS)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_tiny_one(form: str, tiny: Path, tmp_path: Path) -> None:
    vae = AutoencoderTiny(scaling_factor=1.0)
    vae.save_pretrained(tmp_path / "taesd")
    name = "taesd" if form == "folder" else "taesd/diffusion_pytorch_model.safetensors"
    checkpoint = open_checkpoint(tiny, vae=tmp_path / name)
    assert checkpoint.config("vae")["_class_name"] == "AutoencoderTiny"
    for half in ("vae_decoder", "vae_encoder"):
        build_component(half, checkpoint, OPTIONS)


def test_only_what_was_asked_for(other: AutoencoderKL, tiny: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny, components=["unet"], vae=save(other, "folder", tmp_path))
    assert checkpoint.components == ("unet",)
    assert checkpoint.config("vae")["scaling_factor"] == 0.5
    with pytest.raises(IncompleteCheckpointError, match="weights of vae_decoder"):
        checkpoint.weights("vae_decoder")


def test_what_is_no_vae(tiny: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(NotACheckpointError, match=r"expected a VAE .* got a$"):
        open_checkpoint(tiny, vae=tmp_path / "a.safetensors")
    with pytest.raises(NotACheckpointError, match=r"config\.json of a VAE"):
        open_checkpoint(tiny, vae=tmp_path)
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(UnsafeWeightsError, match="can run code"):
        open_checkpoint(tiny, vae=tmp_path / "a.pt")
    with pytest.raises(CheckpointNotFoundError, match="nothing there"):
        open_checkpoint(tiny, vae=tmp_path / "nowhere")


def test_the_digest_is_of_the_other(
    other: AutoencoderKL, tiny: Path, tmp_path: Path, tiny_models: Any
) -> None:
    plain = open_checkpoint(tiny)
    changed = open_checkpoint(tiny, vae=save(other, "original file", tmp_path))
    assert plain.digest("vae_decoder") != changed.digest("vae_decoder")
    assert plain.digest("unet") == changed.digest("unet")
