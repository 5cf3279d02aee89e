"""Components against diffusers, transformers, and the packages of Apple's converter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sd_convert import (
    Component,
    ConversionOptions,
    OptionsError,
    UnsupportedArchitectureError,
    WeightsMismatchError,
    build_component,
    open_checkpoint,
    sample_inputs,
    write_component,
)
from sd_mil import MLModel, psnr, read_package

pytestmark = pytest.mark.long

COMPONENTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
OPTIONS = ConversionOptions()


def build(name: str, folder: Path, options: ConversionOptions = OPTIONS) -> Component:
    return build_component(name, open_checkpoint(folder, components=[name]), options)


def run(component: Component, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The component with its weights, in float32."""
    state = {
        name: torch.tensor(np.float32(component.weights[name])) for name in component.module.state_dict()
    }
    component.module.load_state_dict(state, assign=True)
    with torch.no_grad():
        return list(component.module(*inputs))


@pytest.mark.parametrize("name", COMPONENTS)
def test_nothing_is_in_memory(name: str, tiny: Path) -> None:
    component = build(name, tiny)
    assert {tensor.device.type for tensor in component.module.state_dict().values()} == {"meta"}
    assert not component.module.training


def test_unet_is_diffusers_unet(tiny: Path, tiny_models: Any) -> None:
    sample, text = torch.randn(2, 4, 8, 8), torch.randn(2, 32, 1, 77)
    time = torch.tensor([981.0, 3.0])
    (found,) = run(build("unet", tiny), sample, time, text)
    with torch.no_grad():
        expected = tiny_models.unet(sample, time, text[:, :, 0].mT).sample
    torch.testing.assert_close(found, expected)


def test_text_encoder_is_transformers_text_model(tiny: Path, tiny_models: Any) -> None:
    ids = torch.randint(0, 188, (1, 77)).float()
    ids[0, 0], ids[0, 9:] = 188, 189
    states, pooled = run(build("text_encoder", tiny), ids)
    with torch.no_grad():
        expected = tiny_models.text_encoder(ids.long())
    torch.testing.assert_close(states, expected.last_hidden_state)
    torch.testing.assert_close(pooled, expected.pooler_output)


def test_vae_is_diffusers_autoencoder(tiny: Path, tiny_models: Any) -> None:
    z, x = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 16, 16) * 2 - 1
    (image,), (latent,) = run(build("vae_decoder", tiny), z), run(build("vae_encoder", tiny), x)
    with torch.no_grad():
        expected_image = tiny_models.vae.decode(z).sample
        expected_latent = tiny_models.vae.encode(x).latent_dist.parameters
    torch.testing.assert_close(image, expected_image)
    torch.testing.assert_close(latent, expected_latent)


#: Checkpoint, component and options, and the package that Apple's converter made of them.
REFERENCES = [
    *(("tiny-sd", name, {}, f"split_einsum/{{}}_{name}") for name in (*COMPONENTS, "safety_checker")),
    ("tiny-sd", "unet", {"unet_support_controlnet": True}, "controlnet/{}_control-unet"),
    *(
        ("tiny-sdxl", name, {"attention_implementation": "ORIGINAL"}, f"sdxl_original/{{}}_{name}")
        for name in ("text_encoder", "text_encoder_2", "unet")
    ),
]


@pytest.mark.parametrize(("checkpoint", "name", "options", "package"), REFERENCES)
def test_ports_and_metadata_are_those_of_apples_converter(
    checkpoint: str, name: str, options: dict[str, Any], package: str, reference: Path
) -> None:
    component = build(name, reference / checkpoint, ConversionOptions(**options))
    file = package.format(f"Stable_Diffusion_version_{checkpoint}") + ".mlpackage"
    theirs = read_package(reference / "reference-packages" / file).description
    for ours, ports in ((component.inputs, theirs.inputs), (component.outputs, theirs.outputs)):
        assert [(p.name, p.shape, p.dtype, p.description) for p in ours] == [
            (p.name, p.shape, p.dtype, p.description) for p in ports
        ]
    for field in ("short_description", "version", "author", "license"):
        assert getattr(component, field) == getattr(theirs, field)
    written_by_coremltools = {key for key in theirs.user_defined if ".coremltools." in key}
    assert {
        key: component.user_defined[key] for key in theirs.user_defined if key not in written_by_coremltools
    } == {key: value for key, value in theirs.user_defined.items() if key not in written_by_coremltools}


@pytest.mark.parametrize(("checkpoint", "name", "options", "package"), REFERENCES[len(COMPONENTS) :])
def test_packages_compute_what_those_of_apples_converter_do(
    checkpoint: str, name: str, options: dict[str, Any], package: str, reference: Path, tmp_path: Path
) -> None:
    """Apple's UNets take the angles of a timestep in float16, hence no more than 60 dB."""
    opened, chosen = open_checkpoint(reference / checkpoint, components=[name]), ConversionOptions(**options)
    component = build_component(name, opened, chosen)
    ours = write_component(
        component, tmp_path / "net.mlpackage", attention=chosen.attention_implementation
    ).path
    file = package.format(f"Stable_Diffusion_version_{checkpoint}") + ".mlpackage"
    inputs = sample_inputs(component, opened)
    expected = MLModel(reference / "reference-packages" / file).predict(inputs)
    got = MLModel(ours).predict(inputs)
    assert min(psnr(array, got[port]) for port, array in expected.items()) > 60


@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_decoder"])
def test_outputs_are_those_recorded_from_torch(name: str, reference: Path) -> None:
    recorded = np.load(reference / "reference-packages" / f"{name}_io.npz")
    component = build(name, reference / "tiny-sd")
    outputs = run(component, *(torch.from_numpy(np.float32(recorded[p.name])) for p in component.inputs))
    for port, output in zip(component.outputs, outputs, strict=True):
        np.testing.assert_allclose(output, recorded[port.name], atol=1e-4)


def test_metadata_that_apps_read(tiny: Path) -> None:
    options = ConversionOptions(attention_implementation="ORIGINAL", model_version="org/name")
    unet = build("unet", tiny, options)
    assert unet.version == "org/name"
    assert (
        unet.user_defined.items()
        >= {
            "identifier": "org/name",
            "attention_implementation": "ORIGINAL",
            "compute_unit": "CPU_AND_GPU",
            "prediction_type": "epsilon",
            "hidden_size": "32",
        }.items()
    )
    assert build("vae_decoder", tiny).user_defined["scaling_factor"] == "0.18215"
    assert build("text_encoder", tiny).user_defined["compute_unit"] == "CPU_AND_NE"


def test_latent_size_of_the_options_reaches_every_port(tiny: Path) -> None:
    options = ConversionOptions(latent_height=12, latent_width=16)
    assert build("unet", tiny, options).inputs[0].shape == (2, 4, 12, 16)
    assert build("vae_decoder", tiny, options).outputs[0].shape == (1, 3, 24, 32)
    assert build("vae_encoder", tiny, options).outputs[0].shape == (1, 8, 12, 16)


def test_lengths_of_text_that_no_number_of_windows_has(tiny: Path) -> None:
    with pytest.raises(OptionsError, match=r"at most 77, or a multiple of it, got 100"):
        build("unet", tiny, ConversionOptions(text_token_sequence_length=100))


def test_prediction_type_comes_from_the_scheduler(tiny: Path, edit_config: Callable[..., Path]) -> None:
    edit_config("scheduler", prediction_type="v_prediction")
    assert build("unet", tiny).user_defined["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(
    ("component", "folder", "key", "value"),
    [
        ("unet", "unet", "_class_name", "SD3Transformer2DModel"),
        ("unet", "unet", "addition_embed_type", "text_time"),
        ("unet", "unet", "class_embed_type", "projection"),
        ("unet", "unet", "num_class_embeds", 10),
        ("unet", "unet", "in_channels", 5),
        ("unet", "unet", "time_embedding_type", "fourier"),
        ("unet", "unet", "time_cond_proj_dim", "many"),
        ("unet", "unet", "down_block_types", ["SimpleCrossAttnDownBlock2D", "DownBlock2D"]),
        ("unet", "unet", "cross_attention_dim", [32, 64]),
        ("unet", "unet", "cross_attention_dim", 64),
        ("unet", "unet", "attention_type", "gated"),
        ("unet", "unet", "an_option_of_next_year", 3),
        ("unet", "unet", "block_out_channels", [33, 64]),
        ("unet", "unet", "norm_num_groups", "many"),
        ("vae_decoder", "vae", "_class_name", "AsymmetricAutoencoderKL"),
        ("vae_encoder", "vae", "down_block_types", ["DownBlock2D", "DownEncoderBlock2D"]),
        ("vae_decoder", "vae", "latents_mean", [0.0, 0.0, 0.0, 0.0]),
        ("vae_decoder", "vae", "scaling_factor", "0.18215"),
        ("text_encoder", "text_encoder", "model_type", "t5"),
        ("text_encoder", "text_encoder", "hidden_act", "relu"),
        ("text_encoder", "text_encoder", "num_attention_heads", 5),
        ("unet", "scheduler", "prediction_type", "flow"),
    ],
)
def test_unsupported_architectures_name_the_key(
    component: str, folder: str, key: str, value: object, edit_config: Callable[..., Path]
) -> None:
    tiny = edit_config(folder, **{key: value})
    with pytest.raises(UnsupportedArchitectureError, match=f"{folder}") as caught:
        build(component, tiny)
    assert "\n" not in str(caught.value)


def change_weights(tiny: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    path = tiny / "unet/diffusion_pytorch_model.fp16.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return tiny


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop("conv_in.weight"), r"1 tensors missing: unet\.conv_in\.weight"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "1 tensors unexpected: extra"),
        (lambda tensors: tensors.update({"conv_in.bias": torch.ones(3)}), r"expected \[32\], got \[3\]"),
        (
            lambda tensors: tensors.update({"conv_in.bias": torch.ones(32).to(torch.int8)}),
            r"conv_in\.bias \(I8\)",
        ),
    ],
)
def test_weights_that_do_not_fit_the_config(
    change: Callable[[dict[str, torch.Tensor]], None], said: str, tiny: Path
) -> None:
    with pytest.raises(WeightsMismatchError, match=said):
        build("unet", change_weights(tiny, change))


def test_many_missing_weights_are_counted_not_listed(tiny: Path) -> None:
    change_weights(tiny, lambda tensors: [tensors.pop(name) for name in list(tensors)[:20]])
    with pytest.raises(WeightsMismatchError, match=r"20 tensors missing.*and 16 more"):
        build("unet", tiny)


def test_attention_names_of_old_autoencoders(tiny: Path) -> None:
    """SD 1.5's own VAE was saved with the names of 2022."""
    path = tiny / "vae/diffusion_pytorch_model.fp16.safetensors"
    new, old = ("to_q", "to_k", "to_v", "to_out.0"), ("query", "key", "value", "proj_attn")
    tensors = load_file(path)
    for ours, theirs in zip(new, old, strict=True):
        tensors = {name.replace(f".{ours}.", f".{theirs}."): tensor for name, tensor in tensors.items()}
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, path)
    for name in ("vae_decoder", "vae_encoder"):
        component = build(name, tiny)
        assert all(weight in component.weights for weight in component.module.state_dict())


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_names_of_text_encoders_with_and_without_prefix(prefix: str, tiny: Path) -> None:
    path = tiny / "text_encoder/model.fp16.safetensors"
    tensors = {prefix + name.removeprefix("text_model."): tensor for name, tensor in load_file(path).items()}
    tensors[prefix + "embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, path)
    component = build("text_encoder", tiny)
    assert all(weight in component.weights for weight in component.module.state_dict())


def test_a_text_encoder_saved_in_half_is_built_in_float32(tiny: Path) -> None:
    config = json.loads((tiny / "text_encoder/config.json").read_text())
    (tiny / "text_encoder/config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
    assert {t.dtype for t in build("text_encoder", tiny).module.state_dict().values()} == {torch.float32}
