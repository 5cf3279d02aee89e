"""compute_in_integers, as MIL text."""
# ruff: noqa: E501 - one line of MIL for each operation

import pytest
from mil_text import assert_leaves_alone, assert_rewrites
from sd_mil.rewriting import compute_in_integers

WEIGHT = """tensor<fp16, [2, 3]> w = constexpr_affine_dequantize()[axis = int32(0),
    quantized_data = tensor<int8, [2, 3]>([[1, 2, 3], [-4, 5, 127]]),
    scale = tensor<fp16, [2]>([0.5, 0.25]), zero_point = int8(0)];"""
FLOATS = "tensor<fp16, [2, 3]> w = const()[val = tensor<fp16, [2, 3]>([[1, 2, 3], [4, 5, 6]])];"


def quantised(*, weight=WEIGHT, scale="fp16(0.125)", again="fp16(0.125)"):
    return f"""(tensor<fp16, [1, 3]> x) {{
        tensor<int8, [1, 3]> q = quantize(input = x, scale = {scale}, output_dtype = string("int8"));
        tensor<fp16, [1, 3]> a = dequantize(input = q, scale = {again});
        {weight}
        tensor<fp16, [1, 2]> y = linear(x = a, weight = w);
    }} -> (y);"""


def test_integers_and_their_scales_stay_apart_up_to_the_layer():
    assert_rewrites(
        compute_in_integers,
        quantised(),
        """(tensor<fp16, [1, 3]> x) {
            tensor<int8, [1, 3]> q = quantize(input = x, scale = fp16(0.125), output_dtype = string("int8"));
            tensor<fp16, [1, 3]> a = dequantize(input = x, scale = fp16(0.125), output_dtype = string("int8"));
            tensor<int8, [2, 3]> w_data = const()[val = tensor<int8, [2, 3]>([[1, 2, 3], [-4, 5, 127]])];
            tensor<fp16, [2, 3]> w = dequantize(
                input = w_data, scale = tensor<fp32, [2]>([0.5, 0.25]), axis = int32(0));
            tensor<fp16, [1, 2]> y = linear(x = a, weight = w);
        } -> (y);""",
    )


@pytest.mark.parametrize(
    "text",
    [
        quantised(weight=WEIGHT.replace("zero_point = int8(0)", "zero_point = int8(3)")),
        quantised(weight=WEIGHT.replace("axis = int32(0)", "axis = int32(1)")),
        quantised(weight=FLOATS),
        quantised(again="fp16(0.25)"),
    ],
    ids=["zero point", "axis", "floats", "scales"],
)
def test_what_is_not_quantised_on_both_sides_is_left_alone(text):
    assert_leaves_alone(compute_in_integers, text)
