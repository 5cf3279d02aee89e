"""Every family from a checkpoint to a bundle that equals torch, with the manifest that says how to use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from sd_bundle import open_bundle
from sd_convert import (
    Checkpoint,
    ConversionOptions,
    build_component,
    convert,
    open_checkpoint,
    sample_inputs,
    verify,
)
from sd_convert.conversion.bundle import model_facts
from sd_convert.facts import chosen_sizes, read_facts
from sd_mil import MLModel
from torch import nn

pytestmark = pytest.mark.long

XL = "StableDiffusionXLPipeline"
THREE = {
    "block_out_channels": (32, 32, 32),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3,
    "up_block_types": ("CrossAttnUpBlock2D",) * 3,
}

#: family -> the UNet's maker and config, options; what else the config changes is in its name
UNETS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "SDXL": ("xl_unet", {}, {"attention_implementation": "ORIGINAL"}),
    "SDXL refiner": ("xl_unet", {"time_ids": 5}, {}),
    "LCM": ("unet", {"time_cond_proj_dim": 15}, {}),
    "inpainting": ("unet", {"in_channels": 9}, {"attention_implementation": "SPLIT_EINSUM_V2"}),
    "InstructPix2Pix": ("unet", {"in_channels": 8}, {}),
    "BK-SDM": ("unet", {**THREE, "mid_block_type": None, "layers_per_block": [1, 2, 1]}, {}),
    "SSD-1B": (
        "xl_unet",
        {
            "mid_block_type": "UNetMidBlock2D",
            "transformer_layers_per_block": [0, [2, 1]],
            "layers_per_block": [1, 2],
            "reverse_transformer_layers_per_block": [[1, 2, 1], [1, 1]],
        },
        {},
    ),
    "ControlNet": ("unet", {}, {"unet_support_controlnet": True}),
    "SDXL, ControlNet, one sample, 154 tokens": (
        "xl_unet",
        {},
        {"unet_support_controlnet": True, "unet_batch_one": True, "text_token_sequence_length": 154},
    ),
    "odd latents": ("unet", THREE, {"latent_height": 9, "latent_width": 13, "unet_support_controlnet": True}),
    "other activations": (
        "unet",
        {
            "act_fn": "gelu",
            "timestep_post_act": "mish",
            "time_embedding_act_fn": "relu",
            "cross_attention_dim": [32, 32],
        },
        {"target": "iOS18", "attention_implementation": "SDPA"},
    ),
    "other blocks": (
        "unet",
        {
            "resnet_time_scale_shift": "scale_shift",
            "conv_in_kernel": 5,
            "conv_out_kernel": 1,
            "center_input_sample": True,
            "only_cross_attention": [True, False],
            "cross_attention_dim": 24,
            "encoder_hid_dim": 32,
            "encoder_hid_dim_type": "text_proj",
            "resnet_out_scale_factor": 2.0,
            "down_block_types": ("CrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
            "up_block_types": ("ResnetUpsampleBlock2D", "CrossAttnUpBlock2D"),
        },
        {"attention_implementation": "AUTO"},
    ),
}

VAES: dict[str, tuple[str, dict[str, Any]]] = {
    "TAESD": ("taesd", {}),
    "without extras": (
        "vae",
        {"mid_block_add_attention": False, "use_quant_conv": False, "use_post_quant_conv": False},
    ),
    "attention in blocks": (
        "vae",
        {
            "act_fn": "mish",
            "down_block_types": ("AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
            "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        },
    ),
    "16 channels, shifted": ("vae", {"latent_channels": 16, "shift_factor": 0.1, "force_upcast": True}),
}

Makers = Mapping[str, Callable[..., nn.Module]]
Make = Callable[..., tuple[Path, Mapping[str, Any]]]


def converted(folder: Path, *components: str, **options: Any) -> tuple[Checkpoint, Path]:
    checkpoint = open_checkpoint(folder, components=components or None)
    bundle = folder.parent / "bundle"
    convert(checkpoint, bundle, ConversionOptions(**options))
    return checkpoint, bundle


def xl_networks(makers: Makers) -> dict[str, nn.Module]:
    return {
        "text_encoder": makers["text"](),
        "text_encoder_2": makers["text"](projected=True, hidden_act="gelu"),
        "unet": makers["xl_unet"](),
    }


@pytest.mark.parametrize("case", UNETS)
def test_unets_equal_torch(case: str, make: Make, tiny_networks: Makers) -> None:
    maker, config, options = UNETS[case]
    networks = {"unet": tiny_networks[maker](**config)}
    if maker == "xl_unet":
        networks = xl_networks(tiny_networks) | networks
    folder, _ = make(**networks)
    checkpoint, bundle = converted(folder, "unet", **options)
    assert min(row.psnr for row in verify(bundle, checkpoint).rows) > 80


@pytest.mark.parametrize("case", VAES)
def test_both_halves_of_autoencoders_equal_torch(case: str, make: Make, tiny_networks: Makers) -> None:
    maker, config = VAES[case]
    vae = tiny_networks[maker](**config)
    channels = vae.config.latent_channels
    folder, _ = make(vae=vae, unet=tiny_networks["unet"](in_channels=channels, out_channels=channels))
    checkpoint, bundle = converted(folder, "vae_decoder", "vae_encoder")
    assert min(row.psnr for row in verify(bundle, checkpoint).rows) > 80
    facts = open_bundle(bundle).manifest.model.vae
    assert facts.encodes == ("latents" if case == "TAESD" else "moments")
    assert facts.scaling_factor == (1.0 if case == "TAESD" else 0.18215)


@pytest.mark.parametrize("options", [{}, {"text_token_sequence_length": 20}])
def test_both_text_encoders_of_sdxl_equal_torch(
    options: dict[str, Any], make: Make, tiny_networks: Makers
) -> None:
    folder, _ = make(**xl_networks(tiny_networks))
    checkpoint, bundle = converted(folder, "text_encoder", "text_encoder_2", **options)
    rows = verify(bundle, checkpoint).rows
    assert [(row.component, row.output) for row in rows] == [
        (name, output)
        for name in ("text_encoder", "text_encoder_2")
        for output in ("hidden_embeds", "pooled_outputs")
    ]
    assert min(row.psnr for row in rows) > 80
    assert {file.parent.name for file in bundle.rglob("vocab.json")} == {"tokenizer", "tokenizer_2"}


def test_the_safety_checker_scores_as_diffusers_does(make: Make, tiny_networks: Makers) -> None:
    folder, networks = make(safety_checker=tiny_networks["safety_checker"]())
    checkpoint, bundle = converted(folder, "safety_checker")
    (entry,) = open_bundle(bundle).manifest.components
    model = MLModel(open_bundle(bundle).package(entry))
    component = build_component("safety_checker", checkpoint, ConversionOptions())
    verdicts = set()
    for seed in range(12):
        inputs = sample_inputs(component, checkpoint, seed=seed)
        clip, images = (torch.from_numpy(inputs[name]).float() for name in ("clip_input", "images"))
        filtered, unsafe = networks["safety_checker"](clip, images.clone())
        got = model.predict(inputs)
        assert got["has_nsfw_concepts"].ravel().tolist() == [float(verdict) for verdict in unsafe]
        torch.testing.assert_close(torch.from_numpy(got["filtered_images"]), filtered, atol=1e-3, rtol=0)
        verdicts.update(unsafe)
    assert verdicts == {True, False}
    assert min(row.psnr for row in verify(bundle, checkpoint).rows) > 60


def test_residuals_are_those_of_diffusers_controlnet(make: Make, tiny_networks: Makers) -> None:
    unet = tiny_networks["unet"](**THREE)
    folder, networks = make(unet=unet)
    options = ConversionOptions(latent_height=9, unet_support_controlnet=True, unet_batch_one=True)
    component = build_component("unet", open_checkpoint(folder, components=["unet"]), options)
    controlnet = ControlNetModel.from_unet(networks["unet"])
    with torch.no_grad():
        down, middle = controlnet(
            torch.zeros(1, 4, 9, 8), 1, torch.zeros(1, 77, 32), torch.zeros(1, 3, 72, 64), return_dict=False
        )
    ports = [port for port in component.inputs if port.name.startswith("additional_residual_")]
    assert [port.name for port in ports] == [f"additional_residual_{i}" for i in range(len(down) + 1)]
    assert [port.shape for port in ports] == [tuple(residual.shape) for residual in (*down, middle)]


def test_zero_residuals_change_nothing(make: Make, tiny_networks: Makers) -> None:
    folder, networks = make(unet=tiny_networks["unet"]())
    checkpoint, bundle = converted(folder, "unet", unet_support_controlnet=True)
    (entry,) = open_bundle(bundle).manifest.components
    inputs = dict(
        sample_inputs(
            build_component("unet", checkpoint, ConversionOptions(unet_support_controlnet=True)), checkpoint
        )
    )
    for name in inputs:
        inputs[name] = inputs[name] * (not name.startswith("additional_residual_"))
    got = MLModel(open_bundle(bundle).package(entry)).predict(inputs)["noise_pred"]
    sample, timestep, text = (torch.from_numpy(inputs[port.name]).float() for port in entry.inputs[:3])
    with torch.no_grad():
        expected = networks["unet"](sample, timestep, text[:, :, 0].mT).sample
    torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("index", "time_ids", "unet", "expected"),
    [
        ({}, None, {}, ("sd1", "text-to-image", "none", False, False)),
        ({}, None, {"use_linear_projection": True}, ("sd2", "text-to-image", "none", False, False)),
        ({}, None, {"in_channels": 9}, ("sd1", "inpainting", "none", False, False)),
        ({}, None, {"in_channels": 8}, ("sd1", "instruct-pix2pix", "none", False, False)),
        ({}, None, {"time_cond_proj_dim": 16}, ("sd1", "text-to-image", "none", False, True)),
        ({}, 6, {}, ("sdxl", "text-to-image", "size", True, False)),
        (
            {"force_zeros_for_empty_prompt": False},
            6,
            {"in_channels": 9},
            ("sdxl", "inpainting", "size", False, False),
        ),
        (
            {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]},
            5,
            {"cross_attention_dim": 32},
            ("sdxl-refiner", "text-to-image", "aesthetic_score", True, False),
        ),
    ],
)
def test_what_the_manifest_says(
    index: dict[str, Any],
    time_ids: int | None,
    unet: dict[str, Any],
    expected: tuple[object, ...],
    make: Make,
    tiny_networks: Makers,
) -> None:
    networks: dict[str, nn.Module] = {"text_encoder": tiny_networks["text"]()}
    if time_ids is None:
        networks["unet"] = tiny_networks["unet"](**unet)
    else:
        networks = xl_networks(tiny_networks) | {"unet": tiny_networks["xl_unet"](time_ids, **unet)}
    folder, _ = make(index, **networks)
    checkpoint = open_checkpoint(folder)
    read = read_facts(checkpoint)
    facts = model_facts(read, chosen_sizes(read, ConversionOptions()), "tiny", checkpoint.components)
    told = facts.conditioning
    assert (
        facts.family,
        facts.task,
        told.time_ids,
        told.zero_empty_negative,
        told.guidance_embedding,
    ) == expected
    output = "hidden_embeds" if time_ids else "last_hidden_state"
    assert [encoding.hidden_states for encoding in facts.text_encoders] == [output] * len(facts.text_encoders)
    component = build_component("unet", checkpoint, ConversionOptions())
    assert {port.name: port.shape for port in component.inputs}["sample"][1] == facts.denoiser_channels


def test_a_refiner_says_so_to_apps(make: Make, tiny_networks: Makers) -> None:
    folder, _ = make(**xl_networks(tiny_networks) | {"unet": tiny_networks["xl_unet"](5)})
    unet = build_component("unet", open_checkpoint(folder, components=["unet"]), ConversionOptions())
    assert unet.user_defined["requires_aesthetics_score"] == "true"
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == XL
    assert "OpenRAIL++-M" in unet.license
