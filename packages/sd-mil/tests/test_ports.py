"""Images, flexible shapes, defaults, numbers, states, labels and functions, through ``predict``."""

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import (
    Block,
    Constant,
    Description,
    DictionaryType,
    EngineError,
    EnumeratedShapes,
    Function,
    ListType,
    MLModel,
    Operation,
    Port,
    PredictionError,
    Program,
    Reference,
    ShapeRange,
    StateType,
    TensorType,
    UnsupportedModelError,
    Variable,
    read_package,
    write_package,
)


def halved(shape, dtype="fp32"):
    """y = x / 2."""
    return graphs.program(
        {"x": (dtype, *shape)},
        [
            graphs.const("half", np.array(0.5, graphs.NUMPY_DTYPES[dtype])),
            graphs.call("mul", "y", (dtype, *shape), x="x", y="half"),
        ],
        ["y"],
    )


def opened(tmp_path, made, *ports, **more):
    inputs, outputs = ports
    described = Description(inputs, outputs, **more)
    path = write_package(tmp_path / "model.mlpackage", made, described, version=9).path
    return MLModel(path, engine="reference")


def image(name, color, shape=(1, 3, 4, 6), **more):
    return Port(name, shape, "float32", kind="image", color=color, **more)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_colour_images_in_any_form(tmp_path, picture, color):
    pillow = pytest.importorskip("PIL.Image")
    model = opened(
        tmp_path, halved((1, 3, 4, 6)), (image("x", color),), (Port("y", (1, 3, 4, 6), "float32"),)
    )
    planes = (picture if color == "RGB" else picture[..., ::-1]).transpose(2, 0, 1)[None] / np.float32(2)
    for given in (pillow.fromarray(picture), pillow.fromarray(picture).convert("RGBA"), picture, planes * 2):
        np.testing.assert_array_equal(model.predict({"x": given})["y"], planes)


@pytest.mark.parametrize(("color", "mode"), [("RGB", "RGBA"), ("BGR", "RGBA"), ("GRAYSCALE", "L")])
def test_images_come_out_as_core_ml_gives_them(tmp_path, color, mode):
    pytest.importorskip("PIL.Image")
    channels = 1 if color == "GRAYSCALE" else 3
    shape = (1, channels, 2, 3)
    model = opened(tmp_path, halved(shape), (Port("x", shape, "float32"),), (image("y", color, shape),))
    x = np.linspace(-20, 620, 6 * channels, dtype=np.float32).reshape(shape)
    got = model.predict({"x": x})["y"]
    expected = np.clip(np.round(x[0] / 2), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    assert (got.mode, got.size) == (mode, (3, 2))
    if mode == "L":
        np.testing.assert_array_equal(np.asarray(got), expected[..., 0])
    else:
        ordered = expected if color == "RGB" else expected[..., ::-1]
        np.testing.assert_array_equal(np.asarray(got), np.dstack([ordered, np.full((2, 3), 255, np.uint8)]))


def test_half_float_grey_images(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    shape = (1, 1, 2, 3)
    port = image("x", "GRAYSCALE_FLOAT16", shape)
    made = halved(shape, "fp16")
    model = opened(tmp_path, made, (port,), (image("y", "GRAYSCALE_FLOAT16", shape),))
    depth = np.arange(6, dtype=np.float32).reshape(2, 3) / 3
    got = model.predict({"x": pillow.fromarray(depth)})["y"]
    assert got.mode == "F"
    np.testing.assert_array_equal(np.asarray(got), (depth.astype(np.float16) / 2).astype(np.float32))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 6, 3), np.float32), r"got pixels float32\[4, 6, 3\]"),
        (np.zeros((4, 6), np.uint8), "got pixels"),
        (np.zeros((5, 6, 3), np.uint8), "expected RGB image of 6x4 pixels, got one of 6x5 pixels; resize it"),
        (np.zeros((1, 3, 4, 6)), "got a tensor of float64"),
        ("path.png", "got str"),
    ],
)
def test_images_that_do_not_fit(tmp_path, given, message):
    model = opened(
        tmp_path, halved((1, 3, 4, 6)), (image("x", "RGB"),), (Port("y", (1, 3, 4, 6), "float32"),)
    )
    with pytest.raises(PredictionError, match=message):
        model.predict({"x": given})


def test_pictures_of_another_mode_say_how_to_convert(tmp_path, picture):
    pillow = pytest.importorskip("PIL.Image")
    model = opened(
        tmp_path, halved((1, 3, 4, 6)), (image("x", "RGB"),), (Port("y", (1, 3, 4, 6), "float32"),)
    )
    with pytest.raises(PredictionError, match=r"mode 'L'; convert it with .convert\('RGB'\)"):
        model.predict({"x": pillow.fromarray(picture[..., 0])})


@pytest.mark.parametrize("engine", ["reference", "portable"])
@pytest.mark.parametrize(
    ("flexibility", "good", "bad"),
    [
        (EnumeratedShapes(((1, 3), (2, 5))), [(1, 3), (2, 5)], [(1, 5), (3,)]),
        (ShapeRange(((1, 2), (3, None))), [(1, 3), (2, 300)], [(3, 3), (1, 2)]),
    ],
)
def test_flexible_shapes(tmp_path, engine, flexibility, good, bad):
    if engine == "portable":
        pytest.importorskip("openvino")
    path = write_package(
        tmp_path / "model.mlpackage",
        halved((None, None)),
        Description(
            (Port("x", (1, 3), "float32", flexibility=flexibility),), (Port("y", (None, None), "float32"),)
        ),
    ).path
    model = MLModel(path, engine=engine)
    assert model.inputs["x"].shape == (1, 3)
    assert model.inputs["x"].flexibility == flexibility
    for shape in good:
        assert model.predict({"x": np.ones(shape, np.float32)})["y"].shape == shape
    for shape in bad:
        with pytest.raises(PredictionError, match=r"expected float32.*for input 'x'$"):
            model.predict({"x": np.ones(shape, np.float32)})


def test_optional_inputs_have_defaults(tmp_path):
    made = graphs.program(
        {"x": ("fp32", 2), "b": ("fp32", 2)}, [graphs.call("add", "y", ("fp32", 2), x="x", y="b")], ["y"]
    )
    bias = Port("b", (2,), "float32", optional=True, default=1.5)
    model = opened(tmp_path, made, (Port("x", (2,), "float32"), bias), (Port("y", (2,), "float32"),))
    x = np.float32([1, 2])
    assert model.predict({"x": x})["y"].tolist() == [2.5, 3.5]
    assert model.predict({"x": x, "b": x})["y"].tolist() == [2, 4]


def test_numbers_in_and_out(tmp_path):
    made = graphs.program(
        {"n": ("int32", 1), "d": ("fp32",)},
        [
            graphs.call("add", "m", ("int32", 1), x="n", y="n"),
            graphs.call("add", "e", ("fp32",), x="d", y="d"),
        ],
        ["m", "e"],
    )
    kinds = (("int64", "int64"), ("double", "float64"))
    ins = tuple(Port(name, (), dtype, kind=kind) for name, (kind, dtype) in zip("nd", kinds, strict=True))
    outs = tuple(Port(name, (), dtype, kind=kind) for name, (kind, dtype) in zip("me", kinds, strict=True))
    model = opened(tmp_path, made, ins, outs)
    assert model.predict({"n": 3, "d": 0.5}) == {"m": 6, "e": 1.0}
    with pytest.raises(PredictionError, match=r"expected int64, got 0\.5 for input 'n'"):
        model.predict({"n": 0.5, "d": 0.5})


def test_states_live_in_what_make_state_makes(tmp_path):
    kind = TensorType("fp16", (2,))
    operations = (
        graphs.call("read_state", "old", ("fp16", 2), input="acc"),
        graphs.call("add", "sum", ("fp16", 2), x="old", y="x"),
        Operation("write_state", "write", {"input": (Reference("acc"),), "data": (Reference("sum"),)}, ()),
    )
    inputs = (Variable("x", kind), Variable("acc", StateType(kind)))
    made = Program({"main": Function("main", "CoreML8", Block(inputs, operations, ("sum",)))})
    ports = (Port("x", (2,), "float16"),), (Port("sum", (2,), "float16"),)
    model = opened(tmp_path, made, *ports, states=(Port("acc", (2,), "float16", kind="state"),))
    x = np.float16([1, 2])
    state, other = model.make_state(), model.make_state()
    assert [model.predict({"x": x}, state)["sum"].tolist() for _ in range(3)] == [[1, 2], [2, 4], [3, 6]]
    assert model.predict({"x": x}, state=other)["sum"].tolist() == [1, 2]
    state.write_state("acc", x)
    assert model.predict({"x": x}, state)["sum"].tolist() == [2, 4]
    assert state.read_state("acc").tolist() == [2, 4]
    for wrong, call in (
        ("make_state", lambda: model.predict({"x": x})),
        ("got 'nothing'", lambda: state.read_state("nothing")),
    ):
        with pytest.raises(PredictionError, match=wrong):
            call()
    with pytest.raises(PredictionError, match="expected float16"):
        state.write_state("acc", np.float32([1, 2]))


@pytest.mark.parametrize("labels", [("cat", 'd"o"g\n', "ü"), (7, 8, 9)])
def test_classifiers_give_a_label_and_a_dictionary(tmp_path, labels):
    texts = isinstance(labels[0], str)
    key = TensorType("string" if texts else "int64", ())
    classes = Constant(ListType(key, 3), labels if texts else np.array(labels, np.int64))
    outputs = Variable("label", key), Variable("by_label", DictionaryType(key, TensorType("fp64", ())))
    classify = Operation(
        "classify", "c", {"probabilities": (Reference("x"),), "classes": (classes,)}, outputs
    )
    body = Block((Variable("x", TensorType("fp32", (1, 3))),), (classify,), ("label", "by_label"))
    ports = (
        Port("label", (), "str" if texts else "int64", kind="string" if texts else "int64"),
        Port("by_label", (), "str" if texts else "int64", kind="dictionary"),
    )
    model = opened(
        tmp_path,
        Program({"main": Function("main", "CoreML6", body)}),
        (Port("x", (1, 3), "float32"),),
        ports,
        label="label",
        probabilities="by_label",
    )
    assert (model.description.label, model.description.probabilities) == ("label", "by_label")
    result = model.predict({"x": np.float32([[0.25, 0.5, 0.25]])})
    assert result == {"label": labels[1], "by_label": dict(zip(labels, (0.25, 0.5, 0.25), strict=True))}


def test_text_inputs_are_refused_at_load(tmp_path):
    made = graphs.program({"x": ("string",)}, [], ["x"])
    with pytest.raises(UnsupportedModelError, match="expected numbers for input 'x', got a string"):
        opened(tmp_path, made, (Port("x", (), "str", kind="string"),), (Port("x", (), "str", kind="string"),))


@pytest.fixture
def two_functions(tmp_path):
    functions = {
        name: Function(name, "CoreML8", halved(shape).main.body)
        for name, shape in (("short", (2,)), ("long", (3,)))
    }
    described = {
        name: Description((Port("x", shape, "float32"),), (Port("y", shape, "float32"),), author="me")
        for name, shape in (("short", (2,)), ("long", (3,)))
    }
    return write_package(tmp_path / "two.mlpackage", Program(functions, "long"), described, version=9).path


@pytest.mark.parametrize(("name", "size"), [(None, 3), ("short", 2), ("long", 3)])
def test_functions_are_chosen_by_name(two_functions, name, size):
    model = MLModel(two_functions, engine="reference", function_name=name)
    assert model.inputs["x"].shape == (size,)
    assert model.description.author == "me"
    assert model.predict({"x": np.ones(size, np.float32)})["y"].tolist() == [0.5] * size


def test_functions_that_are_not_there(two_functions):
    with pytest.raises(EngineError, match=r"expected one of the functions \['long', 'short'\], got 'main'"):
        MLModel(two_functions, engine="reference", function_name="main")
    assert list(read_package(two_functions).descriptions) == ["short", "long"]  # as the file has them


def test_a_read_package_is_not_read_again(two_functions):
    package = read_package(two_functions)
    assert MLModel(package, engine="reference").package is package


def test_coremltools_reads_the_same_description(tmp_path):
    proto = pytest.importorskip("coremltools.proto.Model_pb2")
    features = pytest.importorskip("coremltools.proto.FeatureTypes_pb2")
    shapes = EnumeratedShapes(((1, 3, 4, 6), (1, 3, 8, 8)))
    ports = (
        image("a", "BGR", flexibility=shapes),
        Port(
            "b",
            (1, 3),
            "float16",
            "words",
            flexibility=ShapeRange(((1, 2), (3, None))),
            optional=True,
            default=2,
        ),
    )
    made = graphs.program({"a": ("fp32", 1, 3, None, None), "b": ("fp16", None, None)}, [], ["a", "b"])
    path = write_package(tmp_path / "m.mlpackage", made, Description(ports, ports), version=8).path
    assert read_package(path).description.inputs == ports
    spec = proto.Model.FromString(graphs.model_file(path).read_bytes())
    first, second = spec.description.input
    assert first.type.imageType.colorSpace == features.ImageFeatureType.BGR
    assert (first.type.imageType.width, first.type.imageType.height) == (6, 4)
    assert [(one.width, one.height) for one in first.type.imageType.enumeratedSizes.sizes] == [(6, 4), (8, 8)]
    array = second.type.multiArrayType
    assert (second.shortDescription, second.type.isOptional, array.floatDefaultValue) == ("words", True, 2)
    limits = [(one.lowerBound, one.upperBound) for one in array.shapeRange.sizeRanges]
    assert (list(array.shape), limits) == ([1, 3], [(1, 2), (3, -1)])
