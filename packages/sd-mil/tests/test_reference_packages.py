"""The packages that Apple's converter made: read, round trip, and compute what torch computes."""

import dataclasses
import functools

import numpy as np
import pytest
from sd_mil import MLModel, Reference, psnr, read_package, write_package

pytestmark = pytest.mark.long

WITH_OUTPUTS = {
    "split_einsum/Stable_Diffusion_version_tiny-sd_unet": "unet",
    "original/Stable_Diffusion_version_tiny-sd_unet": "unet",
    "split_einsum_v2/Stable_Diffusion_version_tiny-sd_unet": "unet",
    "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder": "text_encoder",
    "split_einsum/Stable_Diffusion_version_tiny-sd_vae_decoder": "vae_decoder",
}
WITHOUT_OUTPUTS = [
    "split_einsum/Stable_Diffusion_version_tiny-sd_vae_encoder",
    "split_einsum/Stable_Diffusion_version_tiny-sd_safety_checker",
    "sdxl_original/Stable_Diffusion_version_tiny-sdxl_text_encoder",
    "sdxl_original/Stable_Diffusion_version_tiny-sdxl_text_encoder_2",
    "sdxl_original/Stable_Diffusion_version_tiny-sdxl_unet",
    "sdxl_original/Stable_Diffusion_version_tiny-sdxl_vae_decoder",
    "controlnet/ControlNet_tiny-controlnet",
    "controlnet/Stable_Diffusion_version_tiny-sd_control-unet",
]
EVERY = [*WITH_OUTPUTS, *WITHOUT_OUTPUTS]


def random_inputs(model):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, port in model.inputs.items():
        drawn = rng.integers(0, 2000, port.shape) if name == "input_ids" else rng.standard_normal(port.shape)
        arrays[name] = drawn.astype(port.dtype)
    return arrays


@pytest.mark.parametrize("name", WITH_OUTPUTS)
def test_the_reference_engine_agrees_with_torch(reference_packages, name):
    recorded = np.load(reference_packages / f"{WITH_OUTPUTS[name]}_io.npz")
    model = MLModel(reference_packages / f"{name}.mlpackage", engine="reference")
    results = model.predict({port: recorded[port] for port in model.inputs})
    for port, value in results.items():
        assert psnr(recorded[port], value) >= 60, port


@functools.cache
def computed(path):
    model = MLModel(path, engine="reference")
    return model, model.predict(random_inputs(model))


@pytest.mark.parametrize("name", WITHOUT_OUTPUTS)
def test_every_other_package_runs(reference_packages, name):
    model, results = computed(reference_packages / f"{name}.mlpackage")
    assert [(key, value.shape, value.dtype.name) for key, value in results.items()] == [
        (port.name, port.shape, port.dtype) for port in model.outputs.values()
    ]
    assert all(np.isfinite(value).all() for value in results.values())


@pytest.mark.parametrize("name", WITHOUT_OUTPUTS)
def test_the_engines_agree(reference_packages, name):
    pytest.importorskip("openvino")
    _, expected = computed(reference_packages / f"{name}.mlpackage")
    model = MLModel(reference_packages / f"{name}.mlpackage", engine="portable")
    for port, value in model.predict(random_inputs(model)).items():
        assert psnr(expected[port], value) >= 60, port


def test_the_safety_checker_blanks_what_it_flags(reference_packages):
    """Its random weights flag everything; the part whose shape depends on the data then runs in full."""
    _, results = computed(reference_packages / f"{WITHOUT_OUTPUTS[1]}.mlpackage")
    assert (results["concept_scores"] > 0).any()
    assert results["has_nsfw_concepts"].all()
    assert not results["filtered_images"].any()


@pytest.mark.parametrize("name", EVERY)
def test_writing_what_was_read_gives_the_same_program(reference_packages, tmp_path, name):
    package = read_package(reference_packages / f"{name}.mlpackage")
    again = write_package(tmp_path / "again.mlpackage", package.program, package.description).path
    written = read_package(again)
    assert same(written.program, package.program)
    assert same(written.description, package.description)


@pytest.mark.parametrize("name", EVERY)
def test_reading_agrees_with_coremltools(reference_packages, name):
    """The same operations, names, types and references, and the same bits in every weight."""
    pytest.importorskip("coremltools", exc_type=ImportError)
    from coremltools.proto import Model_pb2

    path = reference_packages / f"{name}.mlpackage"
    package = read_package(path)
    spec = Model_pb2.Model()
    spec.ParseFromString((path / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes())
    function = spec.mlProgram.functions["main"]
    expected = list(function.block_specializations[function.opset].operations)
    operations = list(package.program.operations())
    assert [one.type for one in operations] == [one.type for one in expected]
    for ours, theirs in zip(operations, expected, strict=True):
        assert [named(one) for one in theirs.outputs] == [
            (one.name, list(one.type.shape)) for one in ours.outputs
        ]
        assert {
            key: [one.name for one in value if isinstance(one, Reference)]
            for key, value in ours.inputs.items()
        } == {key: [one.name for one in value.arguments] for key, value in theirs.inputs.items()}
    check_weights(package, path, expected)


def check_weights(package, path, expected):
    from coremltools.libmilstoragepython import _BlobStorageReader

    reader = _BlobStorageReader(str(path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"))
    reads = {"fp16": (reader.read_fp16_data, np.uint16), "fp32": (reader.read_float_data, np.float32)}
    stored = 0
    for ours, theirs in zip(package.program.operations(), expected, strict=True):
        value = ours.attributes.get("val")
        if value is None or not value.stored:
            continue
        read, dtype = reads[value.type.dtype]
        theirs_bits = np.asarray(read(theirs.attributes["val"].blobFileValue.offset), dtype)
        assert theirs_bits.tobytes() == value.value.tobytes()
        stored += 1
    assert stored > 0


def named(output):
    dimensions = output.type.tensorType.dimensions
    return output.name, [one.constant.size if one.HasField("constant") else None for one in dimensions]


def same(left, right):
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if dataclasses.is_dataclass(left):
        return type(left) is type(right) and all(
            same(getattr(left, one.name), getattr(right, one.name)) for one in dataclasses.fields(left)
        )
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right
