"""Models that coremltools makes: what its own description says is what is read."""

import numpy as np
import pytest
from sd_mil import EnumeratedShapes, MLModel, ShapeRange, read_package

ct = pytest.importorskip("coremltools")

#: coremltools leaves a temporary folder to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("coremltools")


def converted(path, program, target="iOS16", **arguments):
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, target),
        skip_model_load=True,
        pass_pipeline=ct.PassPipeline.DEFAULT,
        **arguments,
    )
    model.save(str(path))
    return path


def pooled(shape):
    mb = pytest.importorskip("coremltools.converters.mil").Builder

    @mb.program(input_specs=[mb.TensorSpec(shape)], opset_version=ct.target.iOS16)
    def program(x):
        return mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False, name="means")

    return program


@pytest.mark.parametrize("labels", [["a", 'b"q\n', "ç"], [5, 6, 7]], ids=["text", "integers"])
@pytest.mark.parametrize("engine", ["reference", "portable"])
def test_an_image_classifier_with_scale_and_bias(folder, labels, engine):
    if engine == "portable":
        pytest.importorskip("openvino")
    pillow = pytest.importorskip("PIL.Image")
    path = converted(
        folder / f"{engine}{type(labels[0]).__name__}.mlpackage",
        pooled((1, 3, 4, 6)),
        inputs=[
            ct.ImageType(
                name="x",
                shape=(1, 3, 4, 6),
                scale=1 / 255,
                bias=[0.25, 0.5, 1],
                color_layout=ct.colorlayout.BGR,
            )
        ],
        classifier_config=ct.ClassifierConfig(labels),
    )
    picture = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    result = MLModel(path, engine=engine).predict({"x": pillow.fromarray(picture)})
    expected = picture[..., ::-1].mean((0, 1)) / 255 + [0.25, 0.5, 1]
    assert result["classLabel"] == labels[int(expected.argmax())]
    assert list(result["classLabel_probs"]) == labels
    np.testing.assert_allclose(list(result["classLabel_probs"].values()), expected, rtol=2e-3)


@pytest.mark.parametrize("engine", ["reference", "portable"])
def test_flexible_images(folder, engine):
    if engine == "portable":
        pytest.importorskip("openvino")
    shape = ct.Shape((1, 3, ct.RangeDim(4, 16, default=8), ct.RangeDim(4, 16, default=8)))
    from coremltools.converters.mil.mil import get_new_symbol

    path = converted(
        folder / f"range-{engine}.mlpackage",
        pooled((1, 3, get_new_symbol(), get_new_symbol())),
        inputs=[ct.ImageType(name="x", shape=shape)],
    )
    model = MLModel(path, engine=engine)
    assert model.inputs["x"].flexibility == ShapeRange(((1, 1), (3, 3), (4, 16), (4, 16)))
    assert model.inputs["x"].shape == (1, 3, 8, 8)
    picture = np.random.default_rng(1).integers(0, 256, (5, 9, 3), np.uint8)
    np.testing.assert_allclose(model.predict({"x": picture})["means"][0], picture.mean((0, 1)), rtol=2e-3)


def test_enumerated_shapes(folder):
    from coremltools.converters.mil.mil import get_new_symbol

    path = converted(
        folder / "enumerated.mlpackage",
        pooled((1, 3, get_new_symbol(), get_new_symbol())),
        inputs=[ct.TensorType(name="x", shape=ct.EnumeratedShapes([(1, 3, 4, 4), (1, 3, 8, 2)]))],
    )
    port = read_package(path).description.inputs[0]
    assert isinstance(port.flexibility, EnumeratedShapes)
    assert sorted(port.flexibility.shapes) == [(1, 3, 4, 4), (1, 3, 8, 2)]


@pytest.mark.parametrize("engine", ["reference", "portable"])
def test_a_tensor_that_is_returned_twice(folder, engine):
    mb = pytest.importorskip("coremltools.converters.mil").Builder
    if engine == "portable":
        pytest.importorskip("openvino")

    @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=ct.target.iOS16)
    def program(x):
        y = mb.add(x=x, y=np.float32(2), name="y")
        return y, y

    path = converted(folder / f"twice-{engine}.mlpackage", program)
    function = read_package(path).program.main
    assert len(function.outputs) == 2
    (result,) = MLModel(path, engine).predict({"x": np.ones((2, 3), np.float32)}).values()
    np.testing.assert_array_equal(result, np.full((2, 3), 3, np.float32))


@pytest.mark.parametrize("engine", ["reference", "portable"])
def test_tensors_of_unknown_rank(folder, engine):
    mil = pytest.importorskip("coremltools.converters.mil.mil")
    mb = pytest.importorskip("coremltools.converters.mil").Builder
    if engine == "portable":
        pytest.importorskip("openvino")

    @mb.program(
        input_specs=[mb.TensorSpec((mil.get_new_symbol(),), dtype=mil.types.int32)],
        opset_version=ct.target.iOS16,
    )
    def program(sizes):
        filled = mb.fill(shape=sizes, value=np.float32(2))
        return mb.add(x=filled, y=np.float32(1), name="y")

    path = converted(
        folder / f"unranked-{engine}.mlpackage",
        program,
        inputs=[ct.TensorType(name="sizes", shape=(ct.RangeDim(1, 4),), dtype=np.int32)],
    )
    types = {str(one.type) for op in read_package(path).program.operations() for one in op.outputs}
    assert "fp16[...]" in types
    model = MLModel(path, engine)
    for shape in [(2,), (2, 3), (1, 2, 1, 4)]:
        result = model.predict({"sizes": np.int32(shape)})["y"]
        np.testing.assert_array_equal(result, np.full(shape, 3, np.float32))
