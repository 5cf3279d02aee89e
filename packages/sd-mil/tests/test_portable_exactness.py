"""The same numbers of quantised layers on every processor, held to sums of 64-bit integers.

Where this processor has the instruction for sums of 8-bit integers, both ways of computing are seen. Run with
``ONEDNN_MAX_CPU_ISA=AVX2``, OpenVINO does without that instruction.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")

import mil_graphs as graphs
from mil_graphs import call, program, tensor, variable
from sd_mil import MLModel, Operation
from sd_mil.engines.openvino import compile_program, exactness
from sd_mil.engines.reference.ops.convolution import conv

RNG = np.random.default_rng(5)
#: Powers of two: sums of up to 2^24 steps are exact in fp32, too.
SCALE, WEIGHT_SCALE = 2.0**-4, 2.0**-6
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
PICTURE = (2, 32, 6, 5)

SHAPES = {
    "linear": ((48, 32), (2, 24, 32), 1),
    "linear of odd sizes": ((7, 5), (3, 5), 1),
    "one row": ((48, 32), (1, 32), 1),
    "3x3": ((48, 32, 3, 3), PICTURE, 1),
    "1x1": ((48, 32, 1, 1), PICTURE, 1),
    "columns": ((48, 32, 1, 1), (2, 32, 1, 24), 1),
    "one dimension": ((16, 32, 3), (1, 32, 9), 1),
    "three dimensions": ((16, 8, 2, 2, 2), (1, 8, 3, 3, 3), 1),
    "few channels": ((16, 3, 3, 3), (1, 3, 8, 8), 1),
    "two groups": ((48, 16, 3, 3), PICTURE, 2),
    "depthwise": ((32, 1, 3, 3), PICTURE, 32),
}
ACTIVATIONS = {"int8": ("int8", None), "uint8": ("uint8", 0), "odd zero point": ("uint8", 77)}


@pytest.fixture(params=["this processor's way", "in floats"])
def way(request, monkeypatch):
    """How quantised layers are computed: as this processor does it, and as those without the instruction."""
    if request.param == "in floats":
        monkeypatch.setattr(exactness, "sums_are_exact", lambda: False)
    return "int8" if exactness.sums_are_exact() else "fp32"


def pair(x, shape, dtype, zero):
    given = {"scale": tensor(np.float16(SCALE))}
    if zero is not None:
        given["zero_point"] = tensor(np.dtype(dtype).type(zero))
    return [
        call("quantize", f"{x}_q", (dtype, *shape), input=x, output_dtype=tensor(dtype), **given),
        call("dequantize", f"{x}_a", ("fp16", *shape), input=f"{x}_q", **given),
    ]


def weight(name, data, *, scale=WEIGHT_SCALE):
    attributes = {
        "quantized_data": tensor(data, stored=True),
        "zero_point": tensor(np.zeros(len(data), np.int8)),
        "scale": tensor(np.full(len(data), scale, np.float16)),
        "axis": tensor(np.int32(0)),
    }
    outputs = (variable(name, ("fp16", *data.shape)),)
    return Operation("constexpr_affine_dequantize", name, {}, outputs, attributes)


def layer(data, shape, groups, dtype, zero, out):
    """``y``, of the weight's integers ``data``."""
    more = {} if data.ndim == 2 else {"pad_type": tensor("valid"), "groups": tensor(np.int32(groups))}
    kind = "linear" if data.ndim == 2 else "conv"
    made = call(kind, "y", ("fp32", *out), x="x_a", weight="w", **more)
    return program({"x": ("fp32", *shape)}, [weight("w", data), *pair("x", shape, dtype, zero), made], ["y"])


def exact(q, data, groups):
    """Sums of products in float64, which holds every one of them."""
    q, data = q.astype(np.float64), data.astype(np.float64)
    if data.ndim == 2:
        return q @ data.T
    return conv(q, data, None, pad_type="valid", groups=groups)


def of_kind(kind, shape, low, high):
    if kind == "random":
        return RNG.integers(low, high + 1, shape)
    return np.full(shape, high if kind == "greatest" else low)


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_sums_are_exact(name, activations, way):
    shape, given, groups = SHAPES[name]
    dtype, zero = ACTIVATIONS[activations]
    limits = np.iinfo(dtype)
    kinds = [("random", "random"), ("greatest", "greatest"), ("greatest", "least"), ("least", "greatest")]
    for of_data, of_q in kinds:
        data = of_kind(of_data, shape, -128, 127).astype(np.int8)
        q = of_kind(of_q, given, limits.min, limits.max) - (zero or 0)
        expected = exact(q, data, groups) * (SCALE * WEIGHT_SCALE)
        compiled = compile_program(layer(data, given, groups, dtype, zero, expected.shape))
        got = compiled.run({"x": (q * SCALE).astype(np.float32)})["y"]
        np.testing.assert_array_equal(got, expected.astype(np.float32))
        assert f"{way} in quantised layers" in compiled.arithmetic


@pytest.mark.parametrize("zero", [None, -128, -3, 4, 127])
def test_halves_go_to_the_even_integer_before_the_zero_point_is_added(zero, way):
    x = ((np.arange(-300, 300).reshape(75, 8) + 0.5) * SCALE).astype(np.float32)
    made = layer(np.eye(8, dtype=np.int8), x.shape, 1, "int8", zero, x.shape)
    q = np.clip(np.rint(x / SCALE) + (zero or 0), -128, 127) - (zero or 0)
    np.testing.assert_array_equal(compile_program(made).run({"x": x})["y"], q * (SCALE * WEIGHT_SCALE))


def test_what_other_operations_make_of_the_same_activations(way):
    """Once a model has quantised layers, OpenVINO looks at everything that reads rounded values."""
    data = {
        name: RNG.integers(-127, 128, shape).astype(np.int8)
        for name, shape in {"w": (48, 32, 3, 3), "v": (32, 16, 3, 3)}.items()
    }
    q, k = (RNG.integers(-128, 128, PICTURE) for _ in "qk")
    valid = {"pad_type": tensor("valid")}
    made = program(
        {"x": ("fp32", *PICTURE), "k": ("fp32", *PICTURE)},
        [
            *(weight(name, one) for name, one in data.items()),
            *pair("x", PICTURE, "int8", None),
            *pair("k", PICTURE, "int8", None),
            call("conv", "y", ("fp32", 2, 48, 4, 3), x="x_a", weight="w", **valid),
            call("conv_transpose", "z", ("fp32", 2, 16, 8, 7), x="x_a", weight="v", **valid),
            call("matmul", "m", ("fp32", 2, 32, 6, 6), x="x_a", y="k_a", transpose_y=tensor(np.True_)),
        ],
        ["y", "z", "m"],
    )
    compiled = compile_program(made)
    got = compiled.run({"x": (q * SCALE).astype(np.float32), "k": (k * SCALE).astype(np.float32)})
    flipped = np.flip(data["v"], (2, 3)).swapaxes(0, 1)
    padded = np.pad(q, [(0, 0), (0, 0), (2, 2), (2, 2)])
    expected = {
        "y": exact(q, data["w"], 1) * WEIGHT_SCALE,
        "z": exact(padded, flipped, 1) * WEIGHT_SCALE,
        "m": (q.astype(np.float64) @ k.swapaxes(2, 3)) * SCALE,
    }
    for name, one in expected.items():
        np.testing.assert_array_equal(got[name], (one * SCALE).astype(np.float32))
    assert f"{way} in quantised layers" in compiled.arithmetic


def test_sums_that_do_not_fit_32_bits_are_computed_in_floats():
    terms = 70_000  # 255 · 127 · 70 000 > 2^31
    data = np.full((4, terms), 127, np.int8)
    compiled = compile_program(layer(data, (1, terms), 1, "uint8", 0, (1, 4)))
    got = compiled.run({"x": np.full((1, terms), 255 * SCALE, np.float32)})["y"]
    np.testing.assert_allclose(got, 255 * 127 * terms * SCALE * WEIGHT_SCALE, rtol=1e-3)
    assert "quantised layers" not in compiled.arithmetic


def test_parts_say_what_each_is_computed_with(way):
    """``scatter_nd`` with divisions runs in numpy, between a segment of floats and one of integers."""
    data = RNG.integers(-127, 128, (4, 8)).astype(np.int8)
    divided = {
        "data": "e",
        "indices": tensor(np.int32([[1]])),
        "updates": tensor(np.ones((1, 8), np.float32)),
    }
    made = program(
        {"x": ("fp32", 3, 8)},
        [
            call("exp", "e", ("fp32", 3, 8), x="x"),
            call("scatter_nd", "d", ("fp32", 3, 8), mode=tensor("div"), **divided),
            weight("w", data),
            *pair("d", (3, 8), "int8", None),
            call("linear", "y", ("fp32", 3, 4), x="d_a", weight="w"),
        ],
        ["y"],
    )
    arithmetic = compile_program(made).arithmetic
    floats, integers = arithmetic.split(" | ")
    assert "quantised layers" not in floats
    assert f"{way} in quantised layers" in integers
    assert integers.endswith("; in numpy: scatter_nd")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists() or not IS_X86, reason="Linux says what x86 can do")
@pytest.mark.skipif("ONEDNN_MAX_CPU_ISA" in os.environ, reason="OpenVINO is told not to look")
def test_the_trial_finds_the_instruction():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if not flags & {"avx512_vnni", "avx_vnni"}:
        assert not exactness.sums_are_exact()
    elif "avx512_vnni" in flags:
        assert exactness.sums_are_exact()


_RUN = """
import sys
import numpy as np
from sd_mil import MLModel
from sd_mil.engines.openvino.exactness import sums_are_exact
package, given, result = sys.argv[1:]
model = MLModel(package)
np.save(result, model.predict({"x": np.load(given)})["y"])
print(sums_are_exact(), model.arithmetic)
"""


@pytest.mark.skipif(not IS_X86, reason="what is switched off is an instruction of x86")
def test_without_the_instruction_the_numbers_are_the_same(tmp_path):
    shape, given, groups = SHAPES["3x3"]
    data = RNG.integers(-128, 128, shape).astype(np.int8)
    made = layer(data, given, groups, "uint8", 77, (2, 48, 4, 3))
    package = graphs.write(tmp_path, made)
    x = RNG.uniform(-6, 12, given).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, package, tmp_path / "x.npy", tmp_path / "y.npy"],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("False portable")
    assert "fp32 in quantised layers" in done.stdout
    q = np.clip(np.rint(x / SCALE) + 77, 0, 255) - 77
    expected = (exact(q, data, groups) * (SCALE * WEIGHT_SCALE)).astype(np.float32)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
    np.testing.assert_array_equal(MLModel(package).predict({"x": x})["y"], expected)
