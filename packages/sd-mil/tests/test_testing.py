"""The assertion, the seeded inputs and the plugin that brings them into pytest."""

import numpy as np
import pytest
import sd_mil as mil
from sd_mil.testing import OutputsDifferError, assert_same_outputs, seeded_inputs

pytest_plugins = ["pytester"]

HALF = mil.TensorType("fp16", (2, 3))


def operation(kind, name, x, value):
    constant = mil.Constant(HALF, np.full((2, 3), value, np.float16), stored=12)
    return mil.Operation(
        kind, name, {"x": (mil.Reference(x),), "y": (constant,)}, (mil.Variable(name, HALF),)
    )


def package(path, scale=2.0, shift=1.0, port=None):
    """``scale * x + shift``, in two operations."""
    operations = (operation("mul", "scaled", "x", scale), operation("add", "y", "scaled", shift))
    main = mil.Function("main", "CoreML6", mil.Block((mil.Variable("x", HALF),), operations, ("y",)))
    ports = mil.Description(
        inputs=(port or mil.Port("x", (2, 3), "float16"),), outputs=(mil.Port("y", (2, 3), "float16"),)
    )
    return mil.write_package(path, mil.Program({"main": main}), ports).path


@pytest.fixture
def model(tmp_path):
    return mil.MLModel(package(tmp_path / "model.mlpackage"), engine="reference")


def test_equal_outputs_pass_and_are_measured(model):
    comparison = assert_same_outputs(model, lambda inputs: {"y": inputs["x"] * 2 + 1}, min_psnr=60)
    assert comparison.worst.psnr >= 60


def test_the_first_operation_that_differs_is_named(model, tmp_path):
    wrong = mil.MLModel(package(tmp_path / "wrong.mlpackage", shift=-1.0), engine="reference")
    with pytest.raises(OutputsDifferError) as failed:
        assert_same_outputs(wrong, model, min_psnr=30)
    said = str(failed.value)
    assert "expected every output within 30 dB, got 1 of 1 below" in said
    assert "first divergence below 30 dB: add 'y'" in said
    assert "after 1 operations that agree" in said


def test_a_reference_that_is_no_program_leaves_the_program_or_its_weights(model):
    with pytest.raises(OutputsDifferError, match="the engine computes what the program says"):
        assert_same_outputs(model, lambda inputs: {"y": inputs["x"]})


def test_an_output_without_counterpart_is_an_error(model):
    with pytest.raises(mil.ComparisonError):
        assert_same_outputs(model, lambda inputs: {"y": inputs["x"], "z": inputs["x"][:1]})


def test_a_seed_stands_for_inputs(model):
    one, same, other = (seeded_inputs(model, seed=seed)["x"] for seed in (3, 3, 4))
    assert one.dtype == np.float16
    assert one.shape == (2, 3)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_integers_stay_within_the_table_that_they_look_up(tmp_path):
    table = mil.TensorType("fp16", (5, 2))
    found = mil.TensorType("fp16", (40, 2))
    ids = mil.TensorType("int32", (40,))
    values = mil.Constant(table, np.zeros((5, 2), np.float16), stored=20)
    entries = mil.Operation("const", "table", {}, (mil.Variable("table", table),), {"val": values})
    axis = mil.Constant(mil.TensorType("int32", ()), np.int32(0), stored=0)
    look = mil.Operation(
        "gather",
        "look",
        {"x": (mil.Reference("table"),), "indices": (mil.Reference("ids"),), "axis": (axis,)},
        (mil.Variable("y", found),),
    )
    main = mil.Function("main", "CoreML6", mil.Block((mil.Variable("ids", ids),), (entries, look), ("y",)))
    ports = mil.Description((mil.Port("ids", (40,), "int32"),), (mil.Port("y", (40, 2), "float16"),))
    path = mil.write_package(tmp_path / "look.mlpackage", mil.Program({"main": main}), ports).path
    assert set(seeded_inputs(path)["ids"].tolist()) == {0, 1, 2, 3, 4}


def test_the_plugin_is_there_without_an_import(pytester, tmp_path):
    path = package(tmp_path / "model.mlpackage")
    pytester.makepyfile(f"""
        from sd_mil import MLModel

        def model():
            return MLModel({str(path)!r}, engine="reference")

        def test_right(model_inputs, assert_same_outputs):
            inputs = model_inputs({str(path)!r}, seed=5)
            assert_same_outputs(model(), lambda given: {{"y": given["x"] * 2 + 1}}, inputs, min_psnr=50)

        def test_wrong(assert_same_outputs):
            assert_same_outputs(model(), lambda given: {{"y": given["x"]}})
    """)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*OutputsDifferError: expected every output within 35 dB*"])
