"""The package on disk: what coremltools reads of it, what is refused, what is left behind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sd_convert.conversion.write import write_component
from sd_convert.coreml import import_coremltools
from sd_convert.errors import LoweringError, OptionsError, WeightsMismatchError
from sd_convert.targets import TARGETS
from sd_mil import read_package
from torch import Tensor, nn


@pytest.fixture
def component(as_component):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 1))
    return as_component(network.half().float(), {"x": torch.randn(1, 3, 6, 6).half()})


def test_coremltools_reads_the_package(component, tmp_path):
    coremltools = import_coremltools()
    written = write_component(component, tmp_path / "net.mlpackage")
    model = coremltools.models.MLModel(str(written.path), skip_model_load=True)
    spec = model.get_spec()
    assert spec.specificationVersion == 7
    assert list(spec.mlProgram.functions) == ["main"]
    assert spec.mlProgram.functions["main"].opset == "CoreML6"
    metadata = spec.description.metadata
    assert (metadata.shortDescription, metadata.versionString) == ("a test", "1")
    assert (metadata.author, metadata.license) == ("nobody", "MIT")
    assert dict(metadata.userDefined)["key"] == "value"
    keys = ("version", "source", "source_dialect", "conversion_date")
    assert {f"com.github.apple.coremltools.{key}" for key in keys} < set(metadata.userDefined)
    (port,) = spec.description.input
    assert port.shortDescription == "input x"
    assert list(port.type.multiArrayType.shape) == [1, 3, 6, 6]
    # Loading it into coremltools' own program repeats its type inference on every operation.
    from coremltools.converters.mil.frontend.milproto.load import load

    weights = str(written.path / "Data/com.apple.CoreML/weights")
    program = load(spec, spec.specificationVersion, weights)
    inferred = {op.outputs[0].name: tuple(op.outputs[0].shape) for op in program.functions["main"].operations}
    declared = {
        output.name: output.type.shape
        for operation in read_package(written.path).program.operations()
        for output in operation.outputs
    }
    assert inferred.items() <= declared.items()


def test_weights_are_the_checkpoints_own_numbers_under_its_own_names(component, tmp_path):
    written = write_component(component, tmp_path / "net.mlpackage")
    operations = read_package(written.path).program.operations()
    constants = {o.name: o.attributes["val"].value for o in operations if o.type == "const"}
    for name, array in component.weights.items():
        constant = constants[f"module_{name.replace('.', '_')}"]  # MIL's names do not begin with a digit
        assert np.array_equal(constant, array.astype(np.float16))
    assert written.bytes == sum(file.stat().st_size for file in written.path.rglob("*") if file.is_file())


def test_equal_components_become_equal_files(component, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = (write_component(component, tmp_path / f"{name}.mlpackage") for name in "ab")
    files = [sorted(file for file in w.path.rglob("*") if file.is_file()) for w in (first, second)]
    assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]
    date = read_package(first.path).description.user_defined["com.github.apple.coremltools.conversion_date"]
    assert date == "2023-11-14"


@pytest.mark.parametrize("target", ["macOS13", "iOS17", "visionOS2", "macOS15", "iOS26", "macOS26"])
def test_every_target_sets_its_version_and_opset(target, component, tmp_path):
    package = read_package(write_component(component, tmp_path / "net.mlpackage", target=target).path)
    assert package.specification_version == TARGETS[target].specification
    assert package.program.main.opset == f"CoreML{TARGETS[target].specification - 1}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "macOS12"}, "expected one of iOS16, .*macOS13, .* got 'macOS12'"),
        ({"attention": "SPLIT"}, "expected one of ORIGINAL, SPLIT_EINSUM, .*AUTO, got 'SPLIT'"),
        ({"attention": "SDPA"}, "SDPA needs a target out of iOS18, .*macOS15, .*visionOS26, got macOS13"),
        ({"precision": "bfloat16"}, "expected one of float16, float32, got 'bfloat16'"),
    ],
)
def test_unknown_options_are_refused_with_the_choices(options, said, component, tmp_path):
    with pytest.raises(OptionsError, match=said):
        write_component(component, tmp_path / "net.mlpackage", **options)


def test_what_exists_is_not_touched(component, tmp_path):
    there = tmp_path / "net.mlpackage"
    there.mkdir()
    with pytest.raises(OptionsError, match="expected a new path"):
        write_component(component, there)
    assert list(there.iterdir()) == []


class Interrupting(dict):
    """Weights whose read is interrupted by the user, as with Ctrl-C."""

    def __init__(self, weights: dict[str, np.ndarray], name: str) -> None:
        super().__init__(weights)
        self.name = name

    def __getitem__(self, name: str) -> np.ndarray:
        if name == self.name:
            raise KeyboardInterrupt
        return super().__getitem__(name)

    def shape(self, name: str) -> tuple[int, ...]:
        return super().__getitem__(name).shape


def test_nothing_is_left_behind_when_it_is_interrupted(component, tmp_path):
    interrupted = dataclasses.replace(component, weights=Interrupting(component.weights, "3.weight"))
    with pytest.raises(KeyboardInterrupt):
        write_component(interrupted, tmp_path / "net.mlpackage")
    assert list(tmp_path.iterdir()) == []


def test_an_operation_that_is_not_lowered_is_reported_with_its_module(as_component, tmp_path):
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.erfinv(x)

    component = as_component(nn.Sequential(nn.SiLU(), nn.Sequential(Odd())), {"x": torch.zeros(1, 2)})
    with pytest.raises(LoweringError, match=r"^1\.0: .* got aten\.erfinv\.default"):
        write_component(component, tmp_path / "net.mlpackage")


def test_attention_that_cannot_be_rewritten_is_refused(as_component, tmp_path):
    plain = as_component(nn.Linear(2, 2), {"x": torch.zeros(1, 2)}, name="unet")
    plain = dataclasses.replace(plain, rewrites_attention=True)
    with pytest.raises(LoweringError, match="unet: expected a module that one of 1 rules takes"):
        write_component(plain, tmp_path / "net.mlpackage")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda w: w.pop("0.weight"),
            r"0\.weight: expected a tensor \[8, 3, 3, 3\] in the checkpoint, got none",
        ),
        (lambda w: w.update({"3.bias": np.zeros(9)}), r"3\.bias: expected \[8\] from the config, got \[9\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(change, said, component, tmp_path):
    weights = type(component.weights)(component.weights)
    change(weights)
    with pytest.raises(WeightsMismatchError, match=said):
        write_component(dataclasses.replace(component, weights=weights), tmp_path / "net.mlpackage")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_float16_cannot_hold_is_refused(component, tmp_path):
    weights = type(component.weights)(component.weights)
    weights["0.weight"] = weights["0.weight"] + np.float32(70_000)
    component = dataclasses.replace(component, weights=weights)
    with pytest.raises(LoweringError, match=r"0\.weight: expected numbers that float16 can hold, got 7000"):
        write_component(component, tmp_path / "a.mlpackage")
    assert list(tmp_path.iterdir()) == []
    write_component(component, tmp_path / "b.mlpackage", precision="float32")
