import subprocess
import sys

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import (
    EngineError,
    MissingEngineError,
    MLModel,
    PackageError,
    PredictionError,
    UnsupportedOpError,
    read_package,
)

X = np.array([[1, 2, 3], [4, 5, 6]], np.float16)


@pytest.fixture
def model(tmp_path):
    return MLModel(graphs.write(tmp_path), engine="reference")


def test_predicts_in_the_ports_dtype_and_order(model):
    ((name, value),) = model.predict({"x": X}).items()
    assert (name, value.dtype) == ("y", np.float32)
    np.testing.assert_array_equal(value, X * np.float16([1, 2, 3]) + np.float16([[0.5], [-0.5]]))


def test_ports_read_like_a_mapping(model):
    assert {name: str(port) for name, port in model.inputs.items()} == {"x": "x: float16[2, 3]"}
    assert list(model.outputs) == ["y"]
    assert model.description is model.package.description
    assert "numpy" in model.arithmetic
    assert "not the Neural Engine" in model.arithmetic


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, r"expected inputs \['x'\]; missing: \['x'\]; unexpected: \[\]"),
        ({"x": X, "z": X}, r"missing: \[\]; unexpected: \['z'\]"),
        (
            {"x": X.astype(np.float32) * 20_000},
            r"expected float16\[2, 3\], got float32\[2, 3\] for input 'x' with 80000\.0, which float16 does",
        ),
        ({"x": X.T}, r"expected float16\[2, 3\], got float16\[3, 2\] for input 'x'$"),
        ({"x": "text"}, r"expected float16\[2, 3\], got str for input 'x'"),
    ],
)
def test_misfits_say_expected_and_got(model, data, message):
    with pytest.raises(PredictionError, match=message):
        model.predict(data)


def test_inputs_are_left_alone(model):
    x = X.copy()
    model.predict({"x": x})
    np.testing.assert_array_equal(x, X)


def test_rounding_to_fp16_overflows_where_fp16_does(tmp_path):
    made = graphs.program(
        {"x": ("fp16", 1)},
        [
            graphs.call("square", "big", ("fp16", 1), x="x"),
            graphs.call("sqrt", "root", ("fp16", 1), x="big"),
        ],
        ["root"],
    )
    path = graphs.write(tmp_path, made)
    x = np.array([1000], np.float16)
    assert MLModel(path, engine="reference").predict({"x": x})["root"] == 1000
    rounded = MLModel(path, engine="reference", rounding="fp16")
    assert np.isinf(rounded.predict({"x": x})["root"])
    assert "rounded to fp16" in rounded.arithmetic


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"engine": "quantum"},
            "expected engine to be one of auto, portable, reference, coreml, got 'quantum'",
        ),
        ({"engine": "reference", "precision": "bf16"}, "expected precision to be one of 'fp32', got 'bf16'"),
        ({"engine": "reference", "precision": "fp8"}, "expected precision to be one of"),
        ({"engine": "portable", "rounding": "fp16"}, "only reference has it"),
        ({"engine": "reference", "rounding": "fp8"}, "expected rounding to be one of 'fp16'"),
    ],
)
def test_engines_say_what_they_cannot(tmp_path, options, message):
    with pytest.raises(EngineError, match=message):
        MLModel(graphs.write(tmp_path), **options)


def test_a_missing_openvino_prints_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingEngineError, match=r'pip install "sd-mil\[openvino\]"'):
        MLModel(graphs.write(tmp_path))
    assert issubclass(MissingEngineError, ImportError)


def test_unknown_operations_are_refused_at_load(tmp_path):
    calls = [
        graphs.call("frobnicate", "y", ("fp32", 2), x="x"),
        graphs.call("befuddle", "z", ("fp32", 2), x="y"),
    ]
    made = graphs.program({"x": ("fp32", 2)}, calls, ["z"])
    message = r"'frobnicate' named 'y' \(output 'y': fp32\[2\]\); .*: befuddle, frobnicate$"
    with pytest.raises(UnsupportedOpError, match=message):
        MLModel(graphs.write(tmp_path, made), engine="reference")


def test_unknown_parameters_and_choices_are_refused_at_load(tmp_path):
    for index, (inputs, message) in enumerate(
        [({"alpha": "x"}, r"\['alpha'\]"), ({"mode": graphs.tensor("ROUGH")}, "mode='ROUGH'.*only 'EXACT'")]
    ):
        made = graphs.program(
            {"x": ("fp32", 2)}, [graphs.call("gelu", "y", ("fp32", 2), x="x", **inputs)], ["y"]
        )
        with pytest.raises(UnsupportedOpError, match=message):
            MLModel(graphs.write(tmp_path, made, name=f"{index}.mlpackage"), engine="reference")


def test_missing_parameters_are_refused_at_load(tmp_path):
    made = graphs.program({"x": ("fp32", 2)}, [graphs.call("add", "y", ("fp32", 2), x="x")], ["y"])
    with pytest.raises(PackageError, match=r"expected parameters \['y'\]"):
        MLModel(graphs.write(tmp_path, made), engine="reference")


def test_a_declared_shape_that_lies_is_found(tmp_path):
    made = graphs.program({"x": ("fp32", 2)}, [graphs.call("relu", "y", ("fp32", 3), x="x")], ["y"])
    model = MLModel(graphs.write(tmp_path, made), engine="reference")
    with pytest.raises(PackageError, match=r"expected shape \[3\] from operation 'relu'.*got \[2\]"):
        model.predict({"x": np.zeros(2, np.float32)})


def test_an_operation_that_fails_is_named(tmp_path):
    made = graphs.program(
        {"x": ("fp32", 2)},
        [graphs.call("reshape", "y", ("fp32", 3), x="x", shape=graphs.tensor(np.array([3], np.int32)))],
        ["y"],
    )
    model = MLModel(graphs.write(tmp_path, made), engine="reference")
    with pytest.raises(PackageError, match=r"operation 'reshape' named 'y'.*cannot reshape"):
        model.predict({"x": np.zeros(2, np.float32)})


@pytest.mark.parametrize("x", [[1, -2, 3, -4], [1, 2, 3, 4], [-1, -2, -3, -4]])
def test_shapes_may_depend_on_the_data(tmp_path, x):
    """As in the safety checker: as many rows as there are elements to blank, none included."""
    made = graphs.program(
        {"x": ("fp32", 4)},
        [
            graphs.const("zero", np.float32(0)),
            graphs.call("greater", "bad", ("bool", 4), x="x", y="zero"),
            graphs.call("non_zero", "where", ("int32", None, 1), x="bad"),
            graphs.call("gather_nd", "old", ("fp32", None), x="x", indices="where"),
            graphs.call("mul", "new", ("fp32", None), x="old", y="zero"),
            graphs.const("mode", "update"),
            graphs.call(
                "scatter_nd", "y", ("fp32", 4), data="x", indices="where", updates="new", mode="mode"
            ),
        ],
        ["y"],
    )
    model = MLModel(graphs.write(tmp_path, made), engine="reference")
    assert model.predict({"x": np.float32(x)})["y"].tolist() == np.minimum(x, 0).tolist()


def test_values_are_released_after_their_last_use(tmp_path):
    from sd_mil.engines.reference import compile_program

    compiled = compile_program(read_package(graphs.write(tmp_path)).program)
    assert [step.releases for step in compiled.plan.steps] == [("x",), ("scaled",), ("shifted",)]


def test_importing_is_light():
    code = "import sys, sd_mil; print(sorted({'openvino', 'torch', 'coremltools'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
