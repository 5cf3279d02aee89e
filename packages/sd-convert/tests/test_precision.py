"""A component is float32 where, and only where, its numbers do not fit into float16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sd_bundle import open_bundle
from sd_convert import (
    KINDS,
    Checkpoint,
    ConversionCache,
    ConversionOptions,
    OptionsError,
    Sizes,
    build_component,
    convert,
    open_checkpoint,
    plan,
    sample_inputs,
    verify,
)
from sd_convert.components import Part, kind_named, part_of
from sd_convert.conversion.overflow import largest_activation
from sd_convert.conversion.precision import Precision, known_precision
from sd_convert.conversion.programs import Programs
from sd_convert.conversion.write import lower_component
from sd_convert.facts import chosen_sizes
from sd_mil import read_package

VAE = "vae/diffusion_pytorch_model.fp16.safetensors"


def widen(folder: Path, factor: float) -> Path:
    """Scale what enters the decoder's stream of residuals; its last norm scales it back."""
    tensors = load_file(folder / VAE)
    for name in ("decoder.conv_in.weight", "decoder.conv_in.bias"):
        tensors[name] = (tensors[name].astype(np.float32) * factor).astype(np.float16)
    save_file(tensors, folder / VAE)
    return folder


def wanted(
    name: str, checkpoint: Checkpoint, options: ConversionOptions
) -> tuple[Part, Sizes, ConversionOptions]:
    part = part_of(kind_named(name, KINDS), checkpoint)
    return part, chosen_sizes(part.facts, options), options


def check_precision(
    part: Part, sizes: Sizes, options: ConversionOptions, cache: ConversionCache | None
) -> Precision:
    return Programs(sizes, options, cache).checked(part)


def decoder_of(checkpoint: Checkpoint) -> tuple[Part, Sizes, ConversionOptions]:
    return wanted("vae_decoder", checkpoint, ConversionOptions())


def dtypes(package: Path) -> set[str]:
    program = read_package(package).program
    return {output.type.dtype for op in program.operations() if op.type == "conv" for output in op.outputs}


def test_a_decoder_that_overflows_is_float32_and_says_why(tiny: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(widen(tiny, 1e5))
    options = ConversionOptions(components=("vae_decoder", "vae_encoder"))
    cache = ConversionCache(tmp_path / "cache")
    assert plan(checkpoint, options, cache=cache).components[0].precision is None
    report = convert(checkpoint, tmp_path / "bundle", options, cache=cache)
    decoder, encoder = report.components
    assert (decoder.precision, encoder.precision, encoder.reason) == ("float32", "float16", None)
    assert decoder.reason is not None
    assert decoder.reason.startswith("activations reach ")
    assert " in decoder." in decoder.reason
    packages = [tmp_path / "bundle" / part.package for part in report.components]
    assert [dtypes(package) for package in packages] == [{"fp32"}, {"fp16"}]
    said = read_package(packages[0]).description.user_defined
    assert said["compute_precision_reason"] == decoder.reason
    assert min(row.psnr for row in verify(report.bundle, checkpoint).rows) > 50
    assert open_bundle(report.bundle).manifest.components[0].outputs[0].dtype == "float32"
    planned = plan(checkpoint, options, cache=cache).components[0]
    assert planned.precision == "float32"
    ports = open_bundle(report.bundle).manifest.components[0].inputs
    assert [port.dtype for port in ports] == [port.dtype for port in planned.inputs] == ["float32"]


@pytest.mark.parametrize(("factor", "expected"), [(1.0, "float16"), (1e3, "float16"), (1e5, "float32")])
def test_what_is_found_follows_from_the_weights_alone(factor: float, expected: str, tiny: Path) -> None:
    found = check_precision(*decoder_of(open_checkpoint(widen(tiny, factor))), None)
    assert found.dtype == expected


def test_a_check_is_not_repeated_for_the_same_weights(tiny: Path, tmp_path: Path) -> None:
    cache, checkpoint = ConversionCache(tmp_path / "cache"), open_checkpoint(tiny)
    assert known_precision(*decoder_of(checkpoint), cache) is None
    check_precision(*decoder_of(checkpoint), cache)
    assert known_precision(*decoder_of(checkpoint), cache) == Precision("float16")
    part, sizes, options = decoder_of(checkpoint)
    newer = replace(options, target="iOS17")  # whose bundle has the program of its own check
    assert known_precision(part, sizes, newer, cache) is None
    repaired = open_checkpoint(widen(tiny, 2.0))
    assert known_precision(*decoder_of(repaired), cache) is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), {"unet": "float16", "vae_decoder": None}),
        (("fp16",), {"unet": "float16", "vae_decoder": "float16"}),
        (("fp32", "unet=fp16"), {"unet": "float16", "vae_decoder": "float32"}),
        (("auto", "vae_decoder=fp32"), {"unet": None, "vae_decoder": "float32"}),
    ],
)
def test_what_is_asked_for(asked: tuple[str, ...], expected: dict[str, str | None], tiny: Path) -> None:
    options, checkpoint = ConversionOptions(compute_precision=asked), open_checkpoint(tiny)
    for name, dtype in expected.items():
        found = known_precision(*wanted(name, checkpoint, options), None)
        assert (found and found.dtype) == dtype


@pytest.mark.parametrize("wrong", ["half", "vae_decoder=", "=", "fp16=vae_decoder"])
def test_what_nobody_can_ask_for(wrong: str) -> None:
    with pytest.raises(OptionsError, match="compute_precision: expected"):
        ConversionOptions(compute_precision=(wrong,))


@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_decoder", "vae_encoder"])
def test_the_largest_value_is_the_largest_of_all_modules(name: str, tiny: Path) -> None:
    """Against hooks on the network with all its weights."""
    checkpoint = open_checkpoint(tiny)
    component = build_component(name, checkpoint, ConversionOptions())
    inputs = sample_inputs(component, checkpoint)
    lowered = lower_component(
        component, attention="ORIGINAL", compute_unit=None, target="macOS13", precision="float32"
    )
    module, seen = component.module, [0.0]
    found = largest_activation(lowered.program, [inputs], [path for path, _ in module.named_modules()])
    weights = {
        key: torch.from_numpy(np.array(component.weights[key], np.float32)) for key in module.state_dict()
    }
    module.load_state_dict(weights, assign=True)
    for part in module.modules():
        part.register_forward_hook(lambda _, __, result: seen.append(_largest(result)))
    with torch.no_grad():
        module(*(torch.from_numpy(inputs[port.name].astype(np.float32)) for port in component.inputs))
    assert found.magnitude >= max(seen) * (1 - 1e-5)
    assert found.path in dict(module.named_modules())


def _largest(result: Any) -> float:
    tensors = result if isinstance(result, tuple | list) else [result]
    return max((float(x.abs().max()) for x in tensors if isinstance(x, torch.Tensor)), default=0.0)


def test_scores_of_attention_count(tiny: Path) -> None:
    """Two projections that are small each, whose product is not."""
    tensors = load_file(tiny / VAE)
    for part in ("to_q", "to_k"):
        name = f"decoder.mid_block.attentions.0.{part}.weight"
        tensors[name] = (tensors[name].astype(np.float32) * 1e3).astype(np.float16)
    save_file(tensors, tiny / VAE)
    found = check_precision(*decoder_of(open_checkpoint(tiny)), None)
    assert found.dtype == "float32"
    assert found.reason is not None
    assert "attentions.0" in found.reason
