"""lower_palettes: as MIL text, and weights against those that coremltools compresses."""
# ruff: noqa: E501 - one line of MIL for each operation

from dataclasses import replace

import numpy as np
import pytest
from mil_graphs import call, const, named, program, tensor
from mil_text import assert_leaves_alone, assert_rewrites, parsed
from sd_mil import Constant, Operation, TensorType, Variable
from sd_mil.constexpr import pack
from sd_mil.rewriting import decode_constants
from sd_mil.rewriting.palette_form import lower_palettes, palette_obstacles

BEFORE = """(tensor<fp16, [1, 4]> x) {
    tensor<uint8, [2, 4]> i = const()[name = string("i"), val = tensor<uint8, [2, 4]>([[0, 1, 2, 3], [3, 2, 1, 0]])];
    tensor<fp16, [1, 1, 256, 1]> t = const()[name = string("t"), val = tensor<fp16, [1, 1, 256, 1]>(TABLE)];
    tensor<fp16, [2, 4]> w = constexpr_lut_to_dense(indices = i, lut = t)[name = string("w")];
    tensor<fp16, [1, 2]> y = linear(x = x, weight = w)[name = string("y")];
} -> (y);""".replace("TABLE", "[[" + str([[float(n)] for n in range(256)]) + "]]")


def test_the_text_of_a_table():
    indices = "tensor<uint8, [8]>([0, 1, 2, 3, 3, 2, 1, 0])"
    table = f"tensor<fp16, [256]>({[float(n) for n in range(256)]})"
    attributes = (
        f'name = string("w"), indices = {indices}, lut = {table}, shape = tensor<uint32, [2]>([2, 4])'
    )
    after = f"""(tensor<fp16, [1, 4]> x) {{
        tensor<fp16, [2, 4]> w = constexpr_lut_to_dense()[{attributes}];
        tensor<fp16, [1, 2]> y = linear(x = x, weight = w)[name = string("y")];
    }} -> (y);"""
    rewritten = lower_palettes(parsed(BEFORE))
    assert rewritten.main.opset == "CoreML7"
    as_ios18 = replace(rewritten.main, opset="CoreML8")

    class Alike:
        checked = staticmethod(lambda _: replace(rewritten, functions={"main": as_ios18}))

    assert_rewrites(Alike, BEFORE, after)


def made(operations, shape, opset="CoreML8", extra=()):
    """A function that returns x + w, where w is what the operations decode."""
    whole = program(
        {"x": ("fp16", *shape)},
        [*operations, *extra, call("add", "y", ("fp16", *shape), x="x", y="w")],
        ["y"],
    )
    main = replace(whole.main, opset=opset)
    return replace(whole, functions={"main": main})


def packed(indices, dtype):
    bits = int(dtype.removeprefix("uint").removeprefix("int"))
    stored = pack(indices, bits) if bits < 8 else indices
    return Constant(TensorType(dtype, indices.shape), stored, stored=stored.nbytes)


def decoder(kind, name, shape, **inputs):
    given = {key: (value,) for key, value in inputs.items()}
    return Operation(kind, name, given, (Variable(name, TensorType("fp16", shape)),), named(name))


RNG = np.random.default_rng(0)


def table(bits, groups=1, rows=8, columns=16):
    """``groups`` tables along the first axis."""
    lut = RNG.standard_normal((groups, 1, 2**bits, 1)).astype(np.float16)
    indices = RNG.integers(0, 2**bits, (rows, columns)).astype(np.uint8)
    return decoder(
        "constexpr_lut_to_dense",
        "w",
        (rows, columns),
        indices=packed(indices, f"uint{bits}"),
        lut=tensor(lut, stored=True),
    )


def blockwise(dtype, scales, offset=None):
    data = RNG.integers(-8, 7, (8, 16)).astype(np.int8)
    given = {"data": packed(data, dtype), "scale": tensor(RNG.random(scales).astype(np.float16), stored=True)}
    if offset is not None:
        given["offset"] = packed(np.full(scales, offset, np.int8), dtype)
    return decoder("constexpr_blockwise_shift_scale", "w", (8, 16), **given)


def scaled_table(bits, channels=8):
    inner = table(bits, rows=channels)
    inner = replace(inner, name="p", outputs=(Variable("p", inner.outputs[0].type),))
    scale = RNG.random((channels, 1)).astype(np.float16)
    outer = call(
        "constexpr_blockwise_shift_scale",
        "w",
        ("fp16", channels, 16),
        data="p",
        scale=tensor(scale, stored=True),
    )
    return [inner, outer]


FORMS = {
    **{
        f"{bits} bits": ([table(bits)], "constexpr_lut_to_dense", max(bits, 4) if bits == 3 else bits)
        for bits in (1, 2, 3, 4, 6, 8)
    },
    "groups": ([table(4, groups=4)], "constexpr_lut_to_dense", 6),
    "a scale for each channel": (scaled_table(2), "constexpr_lut_to_dense", 6),
    "int8": ([blockwise("int8", (1, 1))], "constexpr_affine_dequantize", None),
    "int8, channels": ([blockwise("int8", (8, 1))], "constexpr_affine_dequantize", None),
    "int8, channels, offset": ([blockwise("int8", (1, 16), offset=3)], "constexpr_affine_dequantize", None),
    "int4": ([blockwise("int4", (1, 1))], "constexpr_lut_to_dense", 4),
}


@pytest.mark.parametrize("name", FORMS)
def test_weights_decode_to_the_same_bits(name):
    operations, kind, bits = FORMS[name]
    before = made(operations, operations[-1].outputs[0].type.shape)
    after = lower_palettes.checked(before)
    assert palette_obstacles(before) == []
    assert after.main.opset == "CoreML7"
    (lowered,) = (one for one in after.operations() if one.type.startswith("constexpr"))
    assert (lowered.type, lowered.inputs) == (kind, {})
    if bits is not None:
        assert lowered.attributes["lut"].type.shape == (2**bits,)
    weights = [weight_of(one) for one in (before, after)]
    np.testing.assert_array_equal(*(one.view(np.uint16) for one in weights))


def weight_of(made):
    decoded = decode_constants(made)
    (weight,) = (one for one in decoded.operations() if one.outputs[0].name == "w")
    return weight.attributes["val"].value


@pytest.mark.parametrize(
    ("operations", "extra", "said"),
    [
        (scaled_table(6, channels=64), (), "w decodes to more than 256 different numbers"),
        (
            [table(4)],
            [call("scaled_dot_product_attention", "a", ("fp16", 8, 16), query="x", key="x", value="x")],
            "scaled_dot_product_attention, which iOS 17 has not",
        ),
    ],
    ids=["too many numbers", "an operation of iOS 18"],
)
def test_what_ios_16_cannot_hold_is_left_alone_and_said(operations, extra, said):
    before = made(operations, operations[-1].outputs[0].type.shape, extra=extra)
    assert said in "; ".join(palette_obstacles(before))
    assert lower_palettes(before) is before


def test_older_functions_are_left_alone():
    before = made([const("w", np.zeros((2, 3), np.float16))], (2, 3), opset="CoreML6")
    assert lower_palettes(before) is before


def test_states_are_an_obstacle():
    assert_leaves_alone(
        lower_palettes,
        """(state<tensor<fp16, [2]>> s, tensor<fp16, [2]> x) {
            tensor<fp16, [2]> r = read_state(input = s);
            tensor<fp16, [2]> y = add(x = x, y = r);
        } -> (y);""",
    )
