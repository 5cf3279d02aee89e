"""What the portable engine refuses, says and promises, beside the numbers."""

import sys

import numpy as np
import pytest
from mil_graphs import affine, call, const, program, tensor, variable
from sd_mil import (
    EngineError,
    MissingEngineError,
    Operation,
    PackageError,
    PredictionError,
    Reference,
    UnsupportedOpError,
    psnr,
)

pytest.importorskip("openvino")

from sd_mil.engines.portable import compile_program

ONE = ("fp16", 2, 3)
X = np.array([[1, 2, 3], [4, 5, 6]], np.float16)


def single(kind, /, out=ONE, **inputs):
    return program({"x": ONE}, [call(kind, "y", out, x="x", **inputs)], ["y"])


def test_a_program_runs_in_the_dtypes_it_declares():
    result = compile_program(affine()).run({"x": X})
    assert result["y"].dtype == np.float32
    np.testing.assert_array_equal(result["y"], X * [1, 2, 3] + np.array([[0.5], [-0.5]]))


def test_intermediate_values_are_not_rounded_to_fp16():
    """1 + 2⁻¹² - 1: gone in fp16, kept in fp32."""
    steps = [
        call("add", "a", ONE, x="x", y=tensor(np.float16(2**-12))),
        call("sub", "b", ONE, x="a", y="x"),
    ]
    result = compile_program(program({"x": ONE}, steps, ["b"])).run({"x": np.ones((2, 3), np.float16)})
    np.testing.assert_array_equal(result["b"], np.full((2, 3), 2**-12, np.float16))


def test_an_infinite_mask_hides():
    mask = np.array([0, -np.inf, 0], np.float16)
    steps = [
        call("add", "a", ONE, x="x", y=tensor(mask)),
        call("softmax", "y", ONE, x="a", axis=tensor(np.int32(-1))),
    ]
    result = compile_program(program({"x": ONE}, steps, ["y"])).run({"x": X})["y"]
    assert (result[:, 1] == 0).all()
    np.testing.assert_allclose(result.sum(1), 1, rtol=1e-3)


def test_results_beyond_fp16_are_infinite():
    result = compile_program(single("mul", y=tensor(np.float16(60000)))).run({"x": X})["y"]
    np.testing.assert_array_equal(result, [[60000, np.inf, np.inf], [np.inf] * 3])


def test_results_do_not_change_when_the_engine_runs_again():
    engine = compile_program(affine())
    first = engine.run({"x": X})["y"]
    kept = first.copy()
    engine.run({"x": X * 2})
    np.testing.assert_array_equal(first, kept)


def test_results_that_are_inputs_or_constants():
    made = program({"x": ONE}, [const("c", np.array([7], np.int32))], ["x", "c"])
    result = compile_program(made).run({"x": X})
    np.testing.assert_array_equal(result["x"], X)
    assert result["c"].tolist() == [7]


def test_arithmetic_names_what_was_used():
    openvino = pytest.importorskip("openvino")
    arithmetic = compile_program(affine()).arithmetic
    assert openvino.__version__.split("-")[0] in arithmetic
    assert "fp32" in arithmetic
    assert "not the Neural Engine" in arithmetic


def large_product():
    weight = const("w", np.random.default_rng(0).standard_normal((64, 64)).astype(np.float16), stored=True)
    return program(
        {"x": ("fp32", 8, 64)}, [weight, call("linear", "y", ("fp32", 8, 64), x="x", weight="w")], ["y"]
    )


def test_fp32_is_fp32_even_where_the_processor_prefers_bf16():
    made = large_product()
    x = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    exact = x @ made.main.body.operations[0].attributes["val"].value.astype(np.float32).T
    assert psnr(exact, compile_program(made).run({"x": x})["y"]) > 120


def test_bf16_is_used_only_when_asked_for():
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(EngineError, match="bf16"):
            compile_program(affine(), precision="bf16")
        return
    made = large_product()
    x = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    exact = compile_program(made).run({"x": x})["y"]
    engine = compile_program(made, precision="bf16")
    assert "bf16" in engine.arithmetic
    assert 30 < psnr(exact, engine.run({"x": x})["y"]) < 90


def test_bf16_is_refused_where_the_processor_has_none(monkeypatch):
    openvino = pytest.importorskip("openvino")

    class Plain(openvino.Core):
        def get_property(self, *_):
            return ["FP32"]

    monkeypatch.setattr(openvino, "Core", Plain)
    with pytest.raises(EngineError, match=r"has FP32\. Use precision fp32"):
        compile_program(affine(), precision="bf16")


def test_an_unknown_precision_is_refused():
    with pytest.raises(EngineError, match=r"fp32, bf16.*'fp8'"):
        compile_program(affine(), precision="fp8")


def test_openvino_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingEngineError, match=r'pip install "sd-mil\[openvino\]"'):
        compile_program(affine())


def test_unsupported_operations_are_named_before_anything_is_built():
    made = program(
        {"x": ONE},
        [
            call("reshape", "broken", ("fp16", 9), x="x", shape=tensor(np.array([9], np.int32))),
            call("warp", "y", ONE, x="broken"),
            call("weft", "z", ONE, x="y"),
        ],
        ["z"],
    )
    with pytest.raises(
        UnsupportedOpError, match=r"'warp': operation 'y', output y: fp16\[2, 3\].*warp, weft"
    ):
        compile_program(made)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("gelu", {"mode": tensor("FAST")}),
        ("pad", {"mode": tensor("circular"), "pad": tensor(np.array([1, 1], np.int32))}),
    ],
)
def test_unsupported_uses_are_named(kind, parameters):
    with pytest.raises(UnsupportedOpError, match=f"operation '{kind}' named 'y'"):
        compile_program(single(kind, **parameters))


@pytest.mark.parametrize(
    "made",
    [
        single("reshape", out=("fp16", 2, 4), shape=tensor(np.array([2, 4], np.int32))),
        single("relu", out=("fp16", 3, 2)),
        single("add"),
        single("add", y="nothing"),
        single("softmax", axis=tensor("last")),
        program({"x": ONE}, [call("relu", "x", ONE, x="x")], ["x"]),
        program(
            {"x": ONE},
            [Operation("relu", "y", {"x": (Reference("x"),)}, (variable("y", ONE), variable("z", ONE)))],
            ["y"],
        ),
    ],
    ids=["size", "declared shape", "missing", "undefined", "text", "defined twice", "too many outputs"],
)
def test_contradictions_are_named(made):
    with pytest.raises(PackageError, match=r"'y'|'x'|'nothing'"):
        compile_program(made)


@pytest.mark.parametrize("inputs", [{}, {"x": X, "z": X}, {"x": X[:1]}, {"x": X[None]}])
def test_inputs_that_do_not_fit_are_refused(inputs):
    with pytest.raises(PredictionError, match="x"):
        compile_program(affine()).run(inputs)


def test_weights_are_shared_with_the_mapped_file(tmp_path):
    """A constant of OpenVINO's points at the mapping, and writing nothing to it leaves the file alone."""
    from sd_mil import Constant, TensorType
    from sd_mil.engines.openvino.constants import constant_output

    path = tmp_path / "weights"
    np.arange(4096, dtype=np.float16).tofile(path)
    weights = np.memmap(path, np.float16, mode="c").reshape(64, 64)
    output = constant_output(Constant(TensorType("fp16", (64, 64)), weights, stored=weights.nbytes))
    held = output.get_node().input_value(0).get_node().data
    assert held.ctypes.data == weights.ctypes.data
    assert output.get_element_type().to_dtype() == np.float32


def test_compressed_weights_are_decoded():
    """y = x · wᵀ, w from a table of four values."""
    table = np.array([-1, 0, 0.5, 2], np.float16)
    indices = np.random.default_rng(0).integers(0, 4, (5, 3)).astype(np.uint8)
    packed = np.packbits(
        np.unpackbits(indices.reshape(-1, 1), axis=1, bitorder="little")[:, :2].ravel(), bitorder="little"
    )
    weight = Operation(
        "constexpr_lut_to_dense",
        "w",
        {},
        (variable("w", ("fp16", 5, 3)),),
        {
            "indices": tensor(packed),
            "lut": tensor(table),
            "shape": tensor(np.array([5, 3], np.uint32)),
        },
    )
    made = program({"x": ONE}, [weight, call("linear", "y", ("fp16", 2, 5), x="x", weight="w")], ["y"])
    expected = X.astype(np.float32) @ table[indices].astype(np.float32).T
    np.testing.assert_allclose(compile_program(made).run({"x": X})["y"], expected, rtol=1e-3)


def test_importing_the_engine_does_not_import_openvino():
    import subprocess

    code = "import sd_mil.engines.openvino, sys; sys.exit('openvino' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
