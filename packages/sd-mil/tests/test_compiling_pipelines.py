"""Pipelines compiled here: the layout of public compiled ones, and the same models when read back."""

import json
import os

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import (
    Description,
    MLModel,
    PackageError,
    Pipeline,
    Port,
    UnsupportedModelError,
    compile_model,
    read_model,
)
from sd_mil.format.writer import encode_model, layout_of

proto = pytest.importorskip("coremltools.proto.Model_pb2")


def scaled(name_in, name_out, factor):
    made = graphs.program(
        {name_in: ("fp32", 3, 2)},
        [
            graphs.const("factor", np.full((3, 2), factor, np.float32), stored=True),
            graphs.call("mul", name_out, ("fp32", 3, 2), x=name_in, y="factor"),
        ],
        [name_out],
    )
    return made, Description((Port(name_in, (3, 2), "float32"),), (Port(name_out, (3, 2), "float32"),))


def pipeline(folder, *, names=("first", "second"), kind="pipeline"):
    """A bare ``.mlmodel`` of two models, with the weights of both beside it."""
    parts = [scaled("x", "h", 3), scaled("h", "y", 5)]
    model = proto.Model(specificationVersion=7)
    inner = getattr(model, kind)
    inner = inner if kind == "pipeline" else inner.pipeline
    layout = layout_of(*(program for program, _ in parts))
    inner.models.extend(proto.Model.FromString(encode_model(*part, layout)) for part in parts)
    inner.names.extend(names)
    model.description.input.extend(inner.models[0].description.input)
    model.description.output.extend(inner.models[1].description.output)
    (folder / "weights").mkdir()
    layout.write(folder / "weights" / "weight.bin", lambda: None)
    path = folder / "model.mlmodel"
    path.write_bytes(model.SerializeToString())
    return path


def u32(*numbers):
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def text(letters):
    return len(letters).to_bytes(8, "little") + letters


def number(value):
    return value.to_bytes(8, "little")


def test_the_files_of_a_pipeline(tmp_path):
    source = pipeline(tmp_path)
    made = compile_model(source, tmp_path / "made.mlmodelc").path
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()) == [
        "analytics/coremldata.bin",
        "coremldata.bin",
        "metadata.json",
        "model0/coremldata.bin",
        "model0/model.mil",
        "model1/coremldata.bin",
        "model1/model.mil",
        "modelNames/coremldata.bin",
        "weights/weight.bin",
    ]
    described = proto.Model.FromString(source.read_bytes()).description.SerializeToString() + b"\xa2\x06\x00"
    assert (made / "coremldata.bin").read_bytes() == (
        u32(202, 1, 0, 0, 0, 1, 0)
        + text(b"generic.model0v7.0.0generic.model1v7.0.0generic")
        + bytes([7, *[0] * 31])
        + text(described)
        + number(2)
        + u32(202, 0)
    )
    assert (made / "modelNames" / "coremldata.bin").read_bytes() == number(2) + text(b"first") + text(
        b"second"
    )
    details = text(b"PipelineModelDetails") + number(1) + text(b"modelDimension") + text(b"2")
    assert (made / "analytics" / "coremldata.bin").read_bytes().startswith(details)
    (said,) = json.loads((made / "metadata.json").read_text())
    assert said["modelType"] == {
        "name": "MLModelType_pipeline",
        "structure": [{"name": "MLModelType_mlProgram"}] * 2,
    }
    assert said["mlProgramOperationTypeHistogram"] == {"Ios16.mul": 2}
    assert said["storagePrecision"] == "Float32"
    assert said["generatedClassName"] == "made"


def test_a_pipeline_comes_back(tmp_path):
    source = pipeline(tmp_path)
    made = compile_model(source, tmp_path / "made.mlmodelc").path
    before, after = read_model(source), read_model(made)
    assert isinstance(after, Pipeline)
    assert list(after.models) == ["first", "second"]
    for name, model in before.models.items():
        other = after.models[name]
        assert model.program.main.body.inputs == other.program.main.body.inputs
        ours, theirs = (one.program.main.body.operations for one in (model, other))
        assert [(one.type, one.name, one.outputs) for one in ours] == [
            (one.type, one.name, one.outputs) for one in theirs
        ]
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(MLModel(made, engine="reference").predict({"x": x})["y"], x * 15)


def test_models_without_names_are_called_by_their_folders(tmp_path):
    made = compile_model(pipeline(tmp_path, names=()), tmp_path / "made.mlmodelc").path
    assert list(read_model(made).models) == ["model0", "model1"]


@pytest.mark.parametrize("up", ["../../", "../../made.mlmodelc/../", "../weights/../../"])
def test_weights_of_a_part_lie_within_the_pipeline(tmp_path, up):
    made = compile_model(pipeline(tmp_path), tmp_path / "made.mlmodelc").path
    (tmp_path / "weight.bin").write_bytes((made / "weights" / "weight.bin").read_bytes())
    program = made / "model0" / "model.mil"
    program.write_text(program.read_text().replace("../weights/", up))
    with pytest.raises(PackageError, match="name a file inside the package"):
        read_model(made)


def test_a_program_by_itself_has_no_way_up(tmp_path):
    source = graphs.write(tmp_path, graphs.affine(), graphs.description(graphs.affine()))
    made = compile_model(source, tmp_path / "made.mlmodelc").path
    program = made / "model.mil"
    program.write_text(program.read_text().replace("@model_path/", "@model_path/../made.mlmodelc/"))
    with pytest.raises(PackageError, match="name a file inside the package"):
        read_model(made)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (number(3), "names of 2 models"),
        (number(2) + number(1 << 60), "a name up to byte"),
        (number(2) + text(b"a") + text(b"a"), "different names"),
        (number(2) + text(b"\xff") + text(b"a"), "UTF-8"),
        (b"\x02", "a number at byte 0"),
    ],
)
def test_damaged_names_of_models(tmp_path, names, message):
    made = compile_model(pipeline(tmp_path), tmp_path / "made.mlmodelc").path
    (made / "modelNames" / "coremldata.bin").write_bytes(names)
    with pytest.raises(PackageError, match=message):
        read_model(made)


def test_classifiers_of_pipelines_are_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="a plain pipeline"):
        compile_model(pipeline(tmp_path, kind="pipelineClassifier"), tmp_path / "made.mlmodelc")
    assert not (tmp_path / "made.mlmodelc").exists()


def test_weights_may_be_hard_links(tmp_path):
    source = pipeline(tmp_path)
    made = compile_model(source, tmp_path / "made.mlmodelc", copy=os.link).path
    weights = tmp_path / "weights" / "weight.bin"
    assert weights.samefile(made / "weights" / "weight.bin")
    copied = compile_model(source, tmp_path / "copied.mlmodelc").path
    assert not weights.samefile(copied / "weights" / "weight.bin")
