"""Text encoders of Apple's converter, with more tokens and fewer layers, against transformers' own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sd_mil import MLModel, Package, UnsupportedModelError, read_package
from sd_mil.ir.uses import constant_of
from sd_mil.rewriting import with_rows, without_last_layers

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference"
PACKAGES = REFERENCE / "reference-packages"
#: checkpoint, package, output, and diffusers' place of it in the hidden states
SD = ("tiny-sd/text_encoder", "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder.mlpackage")
XL = ("tiny-sdxl/text_encoder_2", "sdxl_original/Stable_Diffusion_version_tiny-sdxl_text_encoder_2.mlpackage")

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference checkpoint")


def theirs(folder: str) -> Any:
    transformers = pytest.importorskip("transformers")
    kind = "CLIPTextModel" if folder.startswith("tiny-sd/") else "CLIPTextModelWithProjection"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(transformers, kind).from_pretrained(REFERENCE / folder, variant="fp16").float().eval()


def encoded(package: Package, ids: np.ndarray, engine: str = "portable") -> dict[str, np.ndarray]:
    return MLModel(package, engine).predict({"input_ids": ids.astype(np.float32)})


def changed(package: Package, program: Any) -> Package:
    from dataclasses import replace

    return replace(package, program=program)


def prompt(size: int, *new: int) -> np.ndarray:
    """Start, some words, ``new`` ids, end, and padding."""
    ids = [size - 2, 5, *new, 9, size - 1]
    return np.array([ids + [size - 1] * (77 - len(ids))])


def close(found: np.ndarray, expected: Any) -> None:
    """To what fp16 weights and activations leave."""
    error = np.abs(found - expected.detach().numpy()).max()
    assert error <= 4e-3 * max(1, float(expected.abs().max()))


@pytest.mark.parametrize("skipped", [1, 2])
def test_layers_are_left_out_as_diffusers_does(skipped: int) -> None:
    torch = pytest.importorskip("torch")
    for (folder, path), output, behind in ((SD, "last_hidden_state", 1), (XL, "hidden_embeds", 2)):
        model, package = theirs(folder), read_package(PACKAGES / path)
        ids = prompt(model.config.vocab_size)
        with torch.no_grad():
            seen = model(torch.from_numpy(ids), output_hidden_states=True)
            expected = seen.hidden_states[-(skipped + behind)]
            if output == "last_hidden_state":
                own = getattr(model, "text_model", model)
                expected = own.final_layer_norm(expected)
        program = without_last_layers(package.program, skipped, output=output)
        found = encoded(changed(package, program), ids)
        close(found[output], expected)
        plain = encoded(package, ids)
        np.testing.assert_array_equal(found["pooled_outputs"], plain["pooled_outputs"])
        assert np.abs(found[output] - plain[output]).max() > 0.1


@pytest.mark.parametrize("engine", ["portable", "reference"])
def test_new_tokens_are_rows_of_a_larger_table(engine: str) -> None:
    torch = pytest.importorskip("torch")
    for (folder, path), output, pooled in ((SD, "last_hidden_state", False), (XL, "hidden_embeds", True)):
        model, package = theirs(folder), read_package(PACKAGES / path)
        size, width = model.config.vocab_size, model.config.hidden_size
        rows = np.random.default_rng(4).standard_normal((3, width)).astype(np.float16).astype(np.float32)
        ids = prompt(size, size + 2, size, 7, size + 1)
        program = with_rows(package.program, rows, first=size)
        model.resize_token_embeddings(size + 3, mean_resizing=False)
        model.get_input_embeddings().weight.data[size:] = torch.from_numpy(rows)
        with torch.no_grad():
            seen = model(torch.from_numpy(ids), output_hidden_states=True)
        found = encoded(changed(package, program), ids, engine)
        close(found[output], seen.hidden_states[-2] if pooled else seen.last_hidden_state)
        known = prompt(size)
        plain, same = (encoded(each, known, engine) for each in (package, changed(package, program)))
        for name in plain:
            np.testing.assert_array_equal(same[name], plain[name])
        if pooled:  # the end of the prompt, and not the largest of all ids, which is a new one
            model.config.eos_token_id = size - 1
            with torch.no_grad():
                own = getattr(model, "text_model", model)
                end = own.final_layer_norm(seen.hidden_states[-1])[0, ids[0].tolist().index(size - 1)]
                close(found["pooled_outputs"], model.text_projection(end[None]))


def test_what_is_no_such_network_is_refused() -> None:
    package = read_package(PACKAGES / SD[1])
    layers = sum("mlp_fc1_weight" in each.name for each in package.program.operations() if constant_of(each))
    with pytest.raises(UnsupportedModelError, match=f"at most {layers} layers"):
        without_last_layers(package.program, layers + 1, output="last_hidden_state")
    with pytest.raises(UnsupportedModelError, match="expected an output 'states'"):
        without_last_layers(package.program, 1, output="states")
    with pytest.raises(UnsupportedModelError, match="expected rows of 64 numbers"):
        with_rows(package.program, np.zeros((1, 8), np.float32), first=100)
    with pytest.raises(UnsupportedModelError, match="input 'tokens' that becomes whole numbers"):
        with_rows(package.program, np.zeros((1, 64), np.float32), first=100, ids="tokens")


def test_coremltools_accepts_the_rewritten_package(tmp_path: Path) -> None:
    coremltools = pytest.importorskip("coremltools")
    from sd_mil import write_package

    package = read_package(PACKAGES / SD[1])
    program = without_last_layers(package.program, 1, output="last_hidden_state")
    program = with_rows(program, np.ones((2, 64), np.float32), first=1000)
    write_package(
        tmp_path / "a.mlpackage", program, package.description, version=package.specification_version
    )
    spec = coremltools.models.MLModel(str(tmp_path / "a.mlpackage"), skip_model_load=True).get_spec()
    from coremltools.converters.mil.frontend.milproto.load import load

    loaded = load(
        spec,
        spec.specificationVersion,
        file_weights_dir=str(tmp_path / "a.mlpackage/Data/com.apple.CoreML/weights"),
    )
    (lookup,) = (each for each in loaded["main"].operations if each.op_type == "select")
    assert lookup.outputs[0].shape == (1, 77, 64)
