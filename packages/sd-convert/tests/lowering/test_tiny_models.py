"""Whole networks of diffusers and transformers against torch, and beside Apple's converter's packages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sd_convert import open_checkpoint
from sd_convert.components import build_component
from sd_convert.components.component import Component
from sd_convert.conversion.options import ConversionOptions
from sd_convert.conversion.write import write_component
from sd_mil import MLModel, psnr, read_package

REFERENCE_PACKAGES = {
    ("text_encoder", "SPLIT_EINSUM"): "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder",
    ("unet", "SPLIT_EINSUM"): "split_einsum/Stable_Diffusion_version_tiny-sd_unet",
    ("unet", "ORIGINAL"): "original/Stable_Diffusion_version_tiny-sd_unet",
    ("vae_decoder", "SPLIT_EINSUM"): "split_einsum/Stable_Diffusion_version_tiny-sd_vae_decoder",
    ("vae_encoder", "SPLIT_EINSUM"): "split_einsum/Stable_Diffusion_version_tiny-sd_vae_encoder",
}


def component_of(checkpoint: Path, name: str, **options: object) -> Component:
    return build_component(name, open_checkpoint(checkpoint), ConversionOptions(**options))


def in_torch(component: Component, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The component's own module in float32, with the weights of the files."""
    module = component.module.to_empty(device="cpu").eval()
    weights = {
        name: torch.from_numpy(component.weights[name].astype(np.float32)) for name in module.state_dict()
    }
    module.load_state_dict(weights)
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(array.astype(np.float32)) for array in inputs.values()))
    return [output.numpy() for output in outputs]


def random_inputs(component: Component) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    inputs = {
        port.name: generator.standard_normal(port.shape).astype(port.dtype) for port in component.inputs
    }
    if "timestep" in inputs:
        inputs["timestep"][:] = [981, 37]
    if "input_ids" in inputs:
        inputs["input_ids"] = np.minimum(np.arange(77, dtype=np.float32) * 3, 189)[None]
    return inputs


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("text_encoder", "SPLIT_EINSUM"),
        ("unet", "SPLIT_EINSUM"),
        ("unet", "ORIGINAL"),
        ("vae_decoder", "SPLIT_EINSUM"),
        ("vae_encoder", "SPLIT_EINSUM"),
    ],
)
def test_a_tiny_network_equals_torch(name, attention, tiny, tmp_path):
    component = component_of(tiny, name)
    write_component(component, tmp_path / "net.mlpackage", attention=attention)
    inputs = random_inputs(component)
    got = MLModel(tmp_path / "net.mlpackage", engine="reference").predict(inputs)
    for port, expected in zip(component.outputs, in_torch(component, inputs), strict=True):
        assert psnr(expected, got[port.name]) > 80, port.name


def test_float16_arithmetic_does_not_overflow_or_drift(tiny, tmp_path):
    component = component_of(tiny, "unet")
    write_component(component, tmp_path / "net.mlpackage")
    inputs = random_inputs(component)
    got = MLModel(tmp_path / "net.mlpackage", engine="reference", rounding="fp16").predict(inputs)
    (expected,) = in_torch(component, inputs)
    assert psnr(expected, got["noise_pred"]) > 45


def test_a_text_encoder_that_adds_its_mask_itself(tiny, tmp_path):
    component = component_of(tiny, "text_encoder")
    component.module.text_encoder.config._attn_implementation = "eager"
    written = write_component(component, tmp_path / "net.mlpackage")
    inputs = random_inputs(component)
    got = MLModel(written.path, engine="reference").predict(inputs)
    for port, expected in zip(component.outputs, in_torch(component, inputs), strict=True):
        assert psnr(expected, got[port.name]) > 80, port.name
    operations = read_package(written.path).program.operations()
    constants = [o.attributes["val"].value for o in operations if o.type == "const"]
    assert min(c.min() for c in constants if isinstance(c, np.ndarray) and c.dtype.kind == "f") == -1e4


def test_a_wider_config_with_linear_projections_and_several_heads(edit_config, tmp_path):
    """SD 2.x's way: projections are linear, and blocks have different numbers of heads."""
    from diffusers import UNet2DConditionModel

    checkpoint = edit_config(
        "unet", use_linear_projection=True, attention_head_dim=[2, 8], upcast_attention=True
    )
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(checkpoint / "unet"))
    unet.half().save_pretrained(checkpoint / "unet", variant="fp16")
    component = component_of(checkpoint, "unet")
    written = write_component(component, tmp_path / "net.mlpackage")
    inputs = random_inputs(component)
    got = MLModel(written.path, engine="reference").predict(inputs)
    assert psnr(in_torch(component, inputs)[0], got["noise_pred"]) > 80
    assert "linear" not in written.operations


@pytest.fixture
def packages(reference: Path) -> Path:
    return reference / "reference-packages"


@pytest.mark.parametrize(("name", "attention"), REFERENCE_PACKAGES)
def test_ports_and_kinds_of_operations_are_those_of_apples_converter(
    name, attention, reference, packages, tmp_path
):
    component = component_of(reference / "tiny-sd", name)
    written = write_component(component, tmp_path / "net.mlpackage", attention=attention)
    ours = read_package(written.path)
    theirs = read_package(packages / f"{REFERENCE_PACKAGES[name, attention]}.mlpackage")
    assert ours.specification_version == theirs.specification_version
    assert ours.program.main.opset == theirs.program.main.opset
    assert ours.description.inputs == theirs.description.inputs
    assert ours.description.outputs == theirs.description.outputs
    ours_count, theirs_count = (Counter(o.type for o in p.program.operations()) for p in (ours, theirs))
    assert ours_count.keys() == theirs_count.keys()
    same = {
        "conv",
        "linear",
        "einsum",
        "matmul",
        "softmax",
        "layer_norm",
        "batch_norm",
        "silu",
        "gelu",
        "add",
        "mul",
    }
    assert {op: ours_count[op] for op in same} == {op: theirs_count[op] for op in same}


@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_decoder"])
def test_outputs_agree_with_torch_as_recorded_beside_apples_packages(name, reference, packages, tmp_path):
    component = component_of(reference / "tiny-sd", name)
    write_component(component, tmp_path / "net.mlpackage")
    recorded = np.load(packages / f"{name}_io.npz")
    inputs = {port.name: recorded[port.name].astype(port.dtype) for port in component.inputs}
    got = MLModel(tmp_path / "net.mlpackage", engine="reference").predict(inputs)
    for port in component.outputs:
        assert psnr(recorded[port.name], got[port.name]) > 80
