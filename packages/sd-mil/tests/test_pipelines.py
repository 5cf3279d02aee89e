"""Pipelines: models that pass values by name, and the suppression at the end of object detectors."""

import functools
from dataclasses import replace

import mil_graphs as graphs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_mil import (
    Description,
    MLModel,
    PackageError,
    Pipeline,
    Port,
    PredictionError,
    Suppression,
    UnsupportedModelError,
    read_model,
    read_package,
)
from sd_mil.format import write_model
from sd_mil.format.writer import encode_model, layout_of
from sd_mil.ir import programs_in, with_programs
from sd_mil.predict.suppression import suppress

proto = pytest.importorskip("coremltools.proto.Model_pb2")


def scaled(name_in, name_out, factor, dtype="fp32", shape=(3, 2)):
    """A model of one multiplication, whose factor lies in a weight file."""
    array = np.full(shape, factor, graphs.NUMPY_DTYPES[dtype])
    made = graphs.program(
        {name_in: (dtype, *shape)},
        [
            graphs.const("factor", array, stored=True),
            graphs.call("mul", name_out, (dtype, *shape), x=name_in, y="factor"),
        ],
        [name_out],
    )
    port = "float16" if dtype == "fp16" else "float32"
    return made, Description((Port(name_in, shape, port),), (Port(name_out, shape, port),))


def pipeline(folder, *parts, kind="pipeline", names=()):
    """A bare ``.mlmodel`` with its weights beside it."""
    model = proto.Model(specificationVersion=7)
    inner = getattr(model, kind)
    inner = inner if kind == "pipeline" else inner.pipeline
    layout = layout_of(*(part[0] for part in parts if not isinstance(part, proto.Model)))
    for part in parts:
        if isinstance(part, proto.Model):
            inner.models.append(part)
        else:
            inner.models.append(proto.Model.FromString(encode_model(*part, layout)))
    inner.names.extend(names)
    model.description.input.extend(inner.models[0].description.input)
    model.description.output.extend(inner.models[-1].description.output)
    (folder / "weights").mkdir()
    layout.write(folder / "weights" / "weight.bin", lambda: None)
    path = folder / "model.mlmodel"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["pipeline", "pipelineClassifier", "pipelineRegressor"])
def test_values_pass_by_name_and_between_float_types(tmp_path, kind):
    path = pipeline(tmp_path, scaled("x", "h", 3, "fp16"), scaled("h", "y", 5), kind=kind, names=("a", "b"))
    read = read_model(path)
    assert isinstance(read, Pipeline)
    assert list(read.models) == ["a", "b"]
    model = MLModel(path, engine="reference")
    result = model.predict({"x": np.ones((3, 2), np.float16)})
    assert list(result) == ["y"]
    np.testing.assert_array_equal(result["y"], np.full((3, 2), 15, np.float32))
    with pytest.raises(PredictionError, match=r"missing: \['x'\]"):
        model.predict({})
    with pytest.raises(PredictionError, match=r"'a' of the pipeline: expected float16\[3, 2\]"):
        model.predict({"x": np.ones((2, 2), np.float16)})


def check_written_again(path):
    """Message for message, weight for weight."""
    again = write_model(path.parent / "again.mlpackage", read_model(path)).path
    before, after = (proto.Model.FromString(file.read_bytes()) for file in (path, graphs.model_file(again)))
    assert after == before
    assert graphs.weight_file(again).read_bytes() == (path.parent / "weights" / "weight.bin").read_bytes()


@pytest.mark.parametrize("kind", ["pipeline", "pipelineClassifier", "pipelineRegressor"])
def test_a_pipeline_that_is_written_again_is_the_same(tmp_path, kind):
    def say_more(whole):
        whole.isUpdatable = True  # what no reader knows here
        whole.specificationVersion = 8
        whole.description.metadata.author = "who"
        whole.description.predictedFeatureName = "y"

    parts = (scaled("x", "h", 3, "fp16"), scaled("h", "y", 5))
    check_written_again(edited(pipeline(tmp_path, *parts, kind=kind, names=("a", "b")), say_more))


@pytest.mark.parametrize("labels", ["texts", "numbers", "none"])
def test_the_end_of_a_detector_is_written_again(tmp_path, labels):
    def relabelled(whole):
        whole.pipeline.names.extend(["boxes", "kept"])
        model = whole.pipeline.models[1]
        model.specificationVersion = 5
        if labels != "texts":
            model.nonMaximumSuppression.ClearField("ClassLabels")
        if labels == "numbers":
            model.nonMaximumSuppression.int64ClassLabels.vector.extend([-3, 1 << 40])

    detector(tmp_path, suppression(per_class=labels == "texts"))
    check_written_again(edited(tmp_path / "model.mlmodel", relabelled))


def test_a_program_in_a_pipeline_is_replaced_by_where_it_is(tmp_path):
    read = read_model(pipeline(tmp_path, scaled("x", "h", 3), scaled("h", "y", 5), names=("a", "b")))
    outer = replace(read, models={"in": read, "last": read.models["b"]})
    programs = dict(programs_in(outer, "all"))
    assert list(programs) == ["all/in/a", "all/in/b", "all/last"]
    assert with_programs(outer, programs, "all") is outer
    newer = replace(programs["all/in/b"], specification_version=9)
    changed = with_programs(outer, {"all/in/b": newer}, "all")
    assert dict(programs_in(changed, "all")) == {**programs, "all/in/b": newer}
    assert changed.specification_version == changed.models["in"].specification_version == 9
    assert with_programs(replace(outer, specification_version=8), {"all/last": newer}, "all") == replace(
        outer, specification_version=8, models={"in": read, "last": newer}
    )


def test_a_pipeline_is_no_package(tmp_path):
    with pytest.raises(UnsupportedModelError, match="got a pipeline; read_model reads it"):
        read_package(pipeline(tmp_path, scaled("x", "y", 2)))


def test_other_models_are_refused_by_place_name_and_kind(tmp_path):
    network = proto.Model()
    network.neuralNetwork.SetInParent()
    with pytest.raises(
        UnsupportedModelError, match=r"model 2 of 2, 'nn', of the pipeline: .* got a neural network"
    ):
        read_model(pipeline(tmp_path, scaled("x", "h", 2), network, names=("a", "nn")))


def suppression(rows=None, *, per_class=True, iou=0.5):
    model = proto.Model()
    nms = model.nonMaximumSuppression
    nms.pickTop.perClass = per_class
    nms.iouThreshold, nms.confidenceThreshold = iou, 0.25
    nms.stringClassLabels.vector.extend(["cat", "dog"])
    names = (
        "raw_confidence",
        "raw_coordinates",
        "iouThreshold",
        "confidenceThreshold",
        "confidence",
        "coordinates",
    )
    fields = ("confidenceInput", "coordinatesInput", "iouThresholdInput", "confidenceThresholdInput")
    for field, name in zip((*fields, "confidenceOutput", "coordinatesOutput"), names, strict=True):
        setattr(nms, f"{field}FeatureName", name)
    for name, side in zip(names, ("input",) * 4 + ("output",) * 2, strict=True):
        feature = getattr(model.description, side).add(name=name)
        if name.endswith("Threshold"):
            feature.type.doubleType.SetInParent()
            feature.type.isOptional = True
            continue
        array = feature.type.multiArrayType
        array.dataType = 65600
        if side == "output" and rows is not None:
            columns = 2 if name == "confidence" else 4
            for low, high in (rows, (columns, columns)):
                array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    return model


CONFIDENCE = np.array([[0.9, 0.1], [0.8, 0.0], [0.1, 0.7], [0.1, 0.2]])
#: The first three overlap, the third with another class; the fourth is not confident enough.
BOXES = np.array([[5, 5, 4, 4], [5.1, 5, 4, 4], [5, 5.1, 4, 4], [20, 20, 4, 4]], float)


def detector(tmp_path, model):
    """A program that hands boxes and confidences through, and the suppression after it."""
    shape = {"raw_confidence": (4, 2), "raw_coordinates": (4, 4)}
    made = graphs.program({name: ("fp32", *sizes) for name, sizes in shape.items()}, [], list(shape))
    ports = tuple(Port(name, sizes, "float32") for name, sizes in shape.items())
    path = pipeline(tmp_path, (made, Description(ports, ports)), model)
    whole = proto.Model.FromString(path.read_bytes())
    whole.description.input.extend(model.description.input[2:])
    path.write_bytes(whole.SerializeToString())
    return MLModel(path, engine="reference")


@pytest.mark.parametrize(
    ("rows", "more", "kept"),
    [
        ((0, -1), {}, [0, 2]),
        (None, {}, [0, 2]),
        ((0, -1), {"iouThreshold": 1.0}, [0, 1, 2]),
        ((0, -1), {"confidenceThreshold": 0.15}, [0, 2, 3]),
        ((0, 1), {}, [0]),
        ((3, 3), {}, [0, 2, None]),
    ],
)
def test_the_end_of_an_object_detector(tmp_path, rows, more, kept):
    model = detector(tmp_path, suppression(rows))
    assert isinstance(list(model.package.models.values())[-1], Suppression)
    given = {"raw_confidence": CONFIDENCE.astype(np.float32), "raw_coordinates": BOXES.astype(np.float32)}
    result = model.predict({**given, **more})
    for name, values in (("confidence", CONFIDENCE), ("coordinates", BOXES)):
        expected = [np.zeros(values.shape[1]) if row is None else values[row] for row in kept]
        assert result[name].dtype == np.float64
        np.testing.assert_allclose(result[name], expected, rtol=1e-6)


def test_without_classes_of_their_own_all_boxes_suppress_each_other(tmp_path):
    model = detector(tmp_path, suppression(per_class=False))
    given = {"raw_confidence": CONFIDENCE.astype(np.float32), "raw_coordinates": BOXES.astype(np.float32)}
    assert model.predict(given)["confidence"].shape == (1, 2)


def edited(path, edit):
    """The model in the file after ``edit`` has had its way with the message."""
    whole = proto.Model.FromString(path.read_bytes())
    edit(whole)
    path.write_bytes(whole.SerializeToString())
    return path


def undescribed(tmp_path):
    """A detector as exporters write it: the suppression names its thresholds, the pipeline describes them."""
    model = suppression((0, -1))
    thresholds = list(model.description.input[2:])
    del model.description.input[2:]
    path = tmp_path / "model.mlmodel"
    detector(tmp_path, model)
    return edited(path, lambda whole: whole.description.input.extend(thresholds))


GIVEN = {"raw_confidence": CONFIDENCE.astype(np.float32), "raw_coordinates": BOXES.astype(np.float32)}


@pytest.mark.parametrize("threshold", [0.0, 0.15, 0.75, 0.85, 0.95])
def test_thresholds_that_only_the_pipeline_describes(tmp_path, threshold):
    model = MLModel(undescribed(tmp_path), engine="reference")
    assert [port.name for port in model.inputs.values() if port.optional] == [
        "iouThreshold",
        "confidenceThreshold",
    ]
    result = model.predict({**GIVEN, "confidenceThreshold": threshold, "iouThreshold": 1.0})
    assert len(result["confidence"]) == (CONFIDENCE.max(axis=1) >= threshold).sum()
    assert len(model.predict(GIVEN)["confidence"]) == 2


@pytest.mark.parametrize("threshold", ["0.5", None, np.nan, np.inf, [0.1, 0.2], True])
def test_thresholds_are_numbers(tmp_path, threshold):
    model = MLModel(undescribed(tmp_path), engine="reference")
    with pytest.raises(PredictionError, match="'confidenceThreshold'"):
        model.predict({**GIVEN, "confidenceThreshold": threshold})


def test_thresholds_reach_a_pipeline_within_the_pipeline(tmp_path):
    inner = proto.Model.FromString(undescribed(tmp_path).read_bytes())
    outer = proto.Model(specificationVersion=7)
    outer.description.CopyFrom(inner.description)
    del inner.description.input[2:]  # the inner one does not describe what its last model takes
    outer.pipeline.models.append(inner)
    path = tmp_path / "model.mlmodel"
    path.write_bytes(outer.SerializeToString())
    model = MLModel(path, engine="reference")
    assert len(model.predict({**GIVEN, "confidenceThreshold": 0.85})["confidence"]) == 1


@pytest.mark.parametrize("optional", [False, True])
def test_inputs_that_no_model_takes(tmp_path, optional):
    def add(whole):
        feature = whole.description.input.add(name="strength")
        feature.type.doubleType.SetInParent()
        feature.type.isOptional = optional

    path = edited(pipeline(tmp_path, scaled("x", "y", 2)), add)
    x = np.ones((3, 2), np.float32)
    if not optional:
        with pytest.raises(PackageError, match=r"take each of its inputs, got \['strength'\]"):
            MLModel(path, engine="reference")
        return
    model = MLModel(path, engine="reference")
    np.testing.assert_array_equal(model.predict({"x": x})["y"], 2 * x)
    with pytest.raises(PredictionError, match=r"got \['strength'\], which none does"):
        model.predict({"x": x, "strength": 0.5})


def test_inputs_may_be_outputs_too(tmp_path):
    def add(whole):
        for side in (whole.description.input, whole.description.output):
            side.add().CopyFrom(whole.description.input[0])
            side[-1].name = "same"

    model = MLModel(edited(pipeline(tmp_path, scaled("x", "y", 2)), add), engine="reference")
    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(model.predict({"x": x, "same": 7 * x})["same"], 7 * x)


def test_defaults_of_the_pipeline_are_passed_on(tmp_path):
    def optional(whole):
        kind = whole.description.input[0].type
        kind.isOptional = True
        kind.multiArrayType.floatDefaultValue = 1.5

    model = MLModel(edited(pipeline(tmp_path, scaled("x", "y", 2)), optional), engine="reference")
    np.testing.assert_array_equal(model.predict({})["y"], np.full((3, 2), 3, np.float32))
    np.testing.assert_array_equal(
        model.predict({"x": np.ones((3, 2), np.float32)})["y"], np.full((3, 2), 2.0)
    )


@functools.cache
def openvino_suppression():
    """Boxes N x 4 (centre, size), scores N x C and a threshold to the boxes that stay, best first."""
    ov = pytest.importorskip("openvino")
    ops = pytest.importorskip("openvino.opset9")
    boxes, scores = (ops.parameter(shape, np.float32) for shape in ([1, -1, 4], [1, 2, -1]))
    iou = ops.parameter([], np.float32)
    limits = ops.constant(np.int64(1000)), iou, ops.constant(np.float32(0.01))
    node = ops.non_max_suppression(boxes, scores, *limits, box_encoding="center")
    return ov.Core().compile_model(ov.Model([node.output(0)], [boxes, scores, iou]), "CPU")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([0.1, 0.5, 0.9]))
def test_suppression_against_openvino(seed, count, iou):
    generator = np.random.default_rng(seed)
    best = generator.permutation(np.linspace(0.3, 1, count))
    confidence = np.zeros((count, 2))
    confidence[np.arange(count), generator.integers(0, 2, count)] = best
    boxes = np.hstack([generator.uniform(0, 10, (count, 2)), generator.uniform(1, 6, (count, 2))])
    ports = (Port("k", (), "float64"), Port("l", (), "float64"))
    model = Suppression(Description((), ports), iou, 0.0, True, (), "c", "b", "", "", "k", "l")
    arguments = [boxes[None], confidence.T[None], np.array(iou)]
    results = openvino_suppression()([one.astype(np.float32) for one in arguments])[0]
    order = results[results[:, 2] >= 0, 2]
    np.testing.assert_array_equal(suppress(model, {"c": confidence, "b": boxes})["k"], confidence[order])
