"""lift_attention, as MIL text: the form of older conversions of CLIP, and the fused operation."""
# ruff: noqa: E501 - one line of MIL for each operation

import numpy as np
import pytest
from mil_text import assert_leaves_alone, assert_rewrites, parsed
from sd_mil.engines.reference import compile_program
from sd_mil.rewriting.attention_rank import lift_attention
from sd_mil.rewriting.scores import attentions

INPUTS = "(tensor<fp16, [3, 5, 2]> q, tensor<fp16, [3, 4, 2]> k, tensor<fp16, [3, 4, 2]> v, tensor<fp16, [1, 1, 5, 4]> m)"
OLD_CLIP = f"""{INPUTS} {{
    tensor<fp16, [3, 5, 4]> s = matmul(x = q, y = k, transpose_x = bool(false), transpose_y = bool(true));
    tensor<fp16, [1, 3, 5, 4]> a = reshape(x = s, shape = tensor<int32, [4]>([1, 3, 5, 4]));
    tensor<fp16, [1, 3, 5, 4]> b = add(x = a, y = m);
    tensor<fp16, [3, 5, 4]> c = reshape(x = b, shape = tensor<int32, [3]>([3, 5, 4]));
    tensor<fp16, [3, 5, 4]> w = softmax(x = c, axis = int32(2));
    tensor<fp16, [3, 5, 2]> y = matmul(x = w, y = v);
}} -> (y);"""
FUSED = """(tensor<fp16, [3, 5, 2]> q, tensor<fp16, [3, 4, 2]> k, tensor<fp16, [3, 4, 2]> v) {
    tensor<fp16, [3, 5, 2]> y = scaled_dot_product_attention(query = q, key = k, value = v);
} -> (y);"""
PLAIN = f"""{INPUTS} {{
    tensor<fp16, [3, 5, 4]> s = matmul(x = q, y = k, transpose_x = bool(false), transpose_y = bool(true));
    tensor<fp16, [3, 5, 4]> t = mul(x = s, y = fp16(0x1p-1));
    tensor<fp16, [3, 5, 4]> w = softmax(x = t, axis = int32(-1));
    tensor<fp16, [3, 5, 2]> y = matmul(x = w, y = v);
}} -> (y);"""


def run(program):
    rng = np.random.default_rng(0)
    arrays = {one.name: rng.standard_normal(one.type.shape).astype(np.float16) for one in program.main.inputs}
    return compile_program(program).run(arrays)


def test_fused_attention_gets_a_first_dimension():
    assert_rewrites(
        lift_attention,
        FUSED,
        """(tensor<fp16, [3, 5, 2]> q, tensor<fp16, [3, 4, 2]> k, tensor<fp16, [3, 4, 2]> v) {
            tensor<int32, [1]> q_rank4_axes = const()[name = string("q_rank4_axes"), val = tensor<int32, [1]>([0])];
            tensor<fp16, [1, 3, 5, 2]> q_rank4 = expand_dims(x = q, axes = q_rank4_axes)[name = string("q_rank4")];
            tensor<int32, [1]> k_rank4_axes = const()[name = string("k_rank4_axes"), val = tensor<int32, [1]>([0])];
            tensor<fp16, [1, 3, 4, 2]> k_rank4 = expand_dims(x = k, axes = k_rank4_axes)[name = string("k_rank4")];
            tensor<int32, [1]> v_rank4_axes = const()[name = string("v_rank4_axes"), val = tensor<int32, [1]>([0])];
            tensor<fp16, [1, 3, 4, 2]> v_rank4 = expand_dims(x = v, axes = v_rank4_axes)[name = string("v_rank4")];
            tensor<fp16, [1, 3, 5, 2]> y_rank4 = scaled_dot_product_attention(query = q_rank4, key = k_rank4, value = v_rank4)[name = string("y_rank4")];
            tensor<int32, [1]> y_axes = const()[name = string("y_axes"), val = tensor<int32, [1]>([0])];
            tensor<fp16, [3, 5, 2]> y = squeeze(x = y_rank4, axes = y_axes)[name = string("y")];
        } -> (y);""",
    )


@pytest.mark.parametrize("text", [OLD_CLIP, FUSED, PLAIN], ids=["masked over reshapes", "fused", "scaled"])
def test_not_a_bit_changes(text):
    before = parsed(text)
    after = lift_attention.checked(before)
    assert [len(one.result.type.shape) for one in attentions(after.main.body)] == [4]
    np.testing.assert_array_equal(run(before)["y"], run(after)["y"])


def test_reshapes_around_the_mask_fall_away():
    kinds = [one.type for one in lift_attention(parsed(OLD_CLIP)).operations() if one.type != "const"]
    assert kinds == [
        "expand_dims",
        "expand_dims",
        "matmul",
        "add",
        "softmax",
        "expand_dims",
        "matmul",
        "squeeze",
    ]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("-> (y)", "-> (y, w)"),
        PLAIN.replace("softmax(x = t, axis = int32(-1))", "softmax(x = t, axis = int32(0))"),
        PLAIN.replace("softmax(x = t, axis = int32(-1))", "sigmoid(x = t)"),
    ],
    ids=["weights are returned", "softmax over the batch", "no softmax"],
)
def test_what_is_no_attention_is_left_alone(text):
    assert_leaves_alone(lift_attention, text)
