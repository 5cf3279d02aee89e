"""Quantised layers in integers: what the package rounds is rounded, and nothing else.

Also run with ``ONEDNN_MAX_CPU_ISA=AVX2``, which makes OpenVINO do without VNNI.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_graphs import call, const, program, tensor

pytest.importorskip("openvino")

from sd_mil import Constant, Operation, TensorType
from sd_mil.engines.openvino.exactness import sums_are_exact
from sd_mil.engines.portable import compile_program as compile_portable
from sd_mil.engines.reference import compile_program as compile_reference
from sd_mil.rewriting import compute_in_integers
from sd_mil.rewriting.rows import compute_in_rows

RNG = np.random.default_rng(2)
COLUMNS, PICTURE = (2, 32, 1, 24), (2, 32, 6, 6)


def affine(name, shape, *, zero=0, axis=0):
    """A weight as iOS16 quantises it, one scale per output."""
    data = RNG.integers(-127, 128, shape).astype(np.int8)
    scale = (RNG.random(shape[axis]) * 0.01 + 0.001).astype(np.float16)
    attributes = {
        "quantized_data": tensor(data, stored=True),
        "zero_point": tensor(np.full(shape[axis], zero, np.int8)),
        "scale": tensor(scale),
        "axis": tensor(np.int32(axis)),
    }
    made = call("constexpr_affine_dequantize", name, ("fp16", *shape))
    return Operation(made.type, name, {}, made.outputs, attributes)


def blockwise(name, shape, *, blocks=1):
    """A weight as iOS18 quantises it, in blocks along the second axis."""
    data = RNG.integers(-127, 128, shape).astype(np.int8)
    scale = (RNG.random((shape[0], blocks, *[1] * (len(shape) - 2))) * 0.01 + 0.001).astype(np.float16)
    given = {"data": tensor(data, stored=True), "scale": tensor(scale)}
    return call("constexpr_blockwise_shift_scale", name, ("fp16", *shape), **given)


def pair(x, shape, *, scale=0.05, again=None, zero=None, dtype="int8"):
    given = {"scale": tensor(np.float16(scale))}
    zeros = {} if zero is None else {"zero_point": tensor(np.dtype(dtype).type(zero))}
    second = {"scale": tensor(np.float16(scale if again is None else again))}
    kind = tensor(dtype)
    return [
        call("quantize", f"{x}_q", (dtype, *shape), input=x, output_dtype=kind, **given, **zeros),
        call("dequantize", f"{x}_a", ("fp16", *shape), input=f"{x}_q", **second, **zeros),
    ]


def layer(kind, weight, shape, steps, *, x="x_a"):
    parameters = {} if kind == "linear" else {"pad_type": tensor("valid")}
    out = _out(kind, weight.outputs[0].type.shape, shape)
    bias = const("bias", RNG.standard_normal(weight.outputs[0].type.shape[0]).astype(np.float16))
    made = call(kind, "y", ("fp32", *out), x=x, weight="w", bias="bias", **parameters)
    return program({"x": ("fp32", *shape)}, [weight, bias, *steps, made], ["y"])


def _out(kind, weight, shape):
    if kind == "linear":
        return (*shape[:-1], weight[0])
    return (
        shape[0],
        weight[0],
        *(size - width + 1 for size, width in zip(shape[2:], weight[2:], strict=True)),
    )


def types(made):
    return [operation.type for operation in made.main.body.operations if operation.type != "const"]


CASES = {
    "convolution": ("conv", (48, 32, 3, 3), PICTURE),
    "convolution of columns": ("conv", (48, 32, 1, 1), COLUMNS),
    "linear": ("linear", (48, 32), (2, 24, 32)),
}


@pytest.mark.parametrize("codec", [affine, blockwise])
@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_the_reference_engine_does(case, codec):
    kind, weight, shape = CASES[case]
    made = layer(kind, codec("w", weight), shape, pair("x", shape))
    rewritten = compute_in_integers(made)
    assert types(rewritten) == ["dequantize", "quantize", "dequantize", kind]
    x = RNG.uniform(-7, 7, shape).astype(np.float32)  # -128 to 127 times the scale is -6.4 to 6.35
    expected = compile_reference(made).run({"x": x})["y"]
    compiled = compile_portable(made)
    result = compiled.run({"x": x})["y"]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=np.abs(expected).max() * 1e-3)
    assert f"{'int8' if sums_are_exact() else 'fp32'} in quantised layers" in compiled.arithmetic


@given(zero=st.integers(0, 255), scale=st.sampled_from([0.0625, 0.01]))
@settings(max_examples=8, deadline=None)
def test_activations_may_have_a_zero_point(zero, scale):
    kind, weight, shape = CASES["linear"]
    steps = pair("x", shape, zero=zero, scale=scale, dtype="uint8")
    made = layer(kind, affine("w", weight), shape, steps)
    x = RNG.uniform(-7, 7, shape).astype(np.float32)
    expected = compile_reference(made).run({"x": x})["y"]
    result = compile_portable(made).run({"x": x})["y"]
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=np.abs(expected).max() * 4e-3)


@pytest.mark.parametrize(
    ("weight", "steps"),
    [
        (affine("w", (48, 32), zero=1), pair("x", (2, 24, 32))),
        (affine("w", (48, 32), axis=1), pair("x", (2, 24, 32))),
        (blockwise("w", (48, 32), blocks=2), pair("x", (2, 24, 32))),
        (affine("w", (48, 32)), pair("x", (2, 24, 32), again=0.1)),
        (affine("w", (48, 32)), pair("x", (2, 24, 32), scale=np.inf)),
    ],
    ids=["zero point", "another axis", "blocks within an output", "two scales", "no scale"],
)
def test_what_is_not_of_that_form_is_left_alone(weight, steps):
    made = layer("linear", weight, (2, 24, 32), steps)
    assert compute_in_integers(made) is made
    x = RNG.uniform(-7, 7, (2, 24, 32)).astype(np.float32)
    expected = compile_reference(made).run({"x": x})["y"]
    np.testing.assert_allclose(
        compile_portable(made).run({"x": x})["y"], expected, rtol=1e-3, atol=np.abs(expected).max() * 1e-3
    )


def test_weights_alone_are_no_reason():
    made = layer("linear", affine("w", (48, 32)), (2, 24, 32), [], x="x")
    assert compute_in_integers(made) is made


def test_columns_become_rows_in_integers_too():
    made = layer("conv", affine("w", (48, 32, 1, 1)), COLUMNS, pair("x", COLUMNS))
    rewritten = compute_in_rows(compute_in_integers(made))
    linear = next(one for one in rewritten.main.body.operations if one.type == "linear")
    weight = next(
        one
        for one in rewritten.main.body.operations
        if one.outputs[0].name == linear.inputs["weight"][0].name
    )
    data = weight.inputs["input"][0]
    assert isinstance(data, Constant)
    assert data.type == TensorType("int8", (48, 32))
