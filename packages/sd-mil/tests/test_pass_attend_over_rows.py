"""attend_over_rows, as MIL text: two heads of two channels, of three queries and two keys."""
# ruff: noqa: E501 - one line of MIL for each operation

import pytest
from mil_text import assert_leaves_alone, assert_rewrites
from sd_mil.rewriting.attention_rows import attend_over_rows

INPUTS = "(tensor<fp32, [1, 4, 1, 3]> q, tensor<fp32, [1, 4, 1, 2]> k, tensor<fp32, [1, 4, 1, 2]> v)"
Y = "tensor<fp32, [1, 4, 1, 3]> y"


def over_columns(*, axis=-1, transposed="true"):
    """As ORIGINAL writes it."""
    return f"""{INPUTS} {{
        tensor<fp32, [1, 2, 2, 3]> qh = reshape(x = q, shape = tensor<int32, [4]>([1, 2, 2, 3]));
        tensor<fp32, [1, 2, 2, 2]> kh = reshape(x = k, shape = tensor<int32, [4]>([1, 2, 2, 2]));
        tensor<fp32, [1, 2, 2, 2]> vh = reshape(x = v, shape = tensor<int32, [4]>([1, 2, 2, 2]));
        tensor<fp32, [1, 2, 3, 2]> s = matmul(x = qh, y = kh, transpose_x = bool(true), transpose_y = bool(false));
        tensor<fp32, [1, 2, 3, 2]> m = mul(x = s, y = fp32(0.5));
        tensor<fp32, [1, 2, 3, 2]> w = softmax(x = m, axis = int32({axis}));
        tensor<fp32, [1, 2, 2, 3]> o = matmul(x = vh, y = w, transpose_x = bool(false), transpose_y = bool({transposed}));
        {Y} = reshape(x = o, shape = tensor<int32, [4]>([1, 4, 1, 3]));
    }} -> (y);"""


def rows(name, source, positions):
    """A value as [batch, heads, positions, width]."""
    return f"""
        tensor<fp32, [1, {positions}, 1, 4]> y_{name}_rows = transpose(x = {source}, perm = tensor<int32, [4]>([0, 3, 2, 1]));
        tensor<fp32, [1, {positions}, 2, 2]> y_{name}_positions = reshape(x = y_{name}_rows, shape = tensor<int32, [4]>([1, {positions}, 2, 2]));
        tensor<fp32, [1, 2, {positions}, 2]> y_{name}_heads = transpose(x = y_{name}_positions, perm = tensor<int32, [4]>([0, 2, 1, 3]));"""


def test_columns_become_rows():
    before = over_columns()
    after = f"""{before[: before.index(Y)]}{rows("query", "q", 3)}{rows("key", "k", 2)}{rows("value", "v", 2)}
        tensor<fp32, [1, 2, 3, 2]> y_query_scaled = mul(x = y_query_heads, y = fp32(0x1.6a09e6p-1));
        tensor<fp32, [1, 2, 3, 2]> y_attended = scaled_dot_product_attention(
            query = y_query_scaled, key = y_key_heads, value = y_value_heads);
        tensor<fp32, [1, 3, 2, 2]> y_positions = transpose(x = y_attended, perm = tensor<int32, [4]>([0, 2, 1, 3]));
        tensor<fp32, [1, 3, 1, 4]> y_rows = reshape(x = y_positions, shape = tensor<int32, [4]>([1, 3, 1, 4]));
        {Y} = transpose(x = y_rows, perm = tensor<int32, [4]>([0, 3, 2, 1]));
    }} -> (y);"""
    assert_rewrites(attend_over_rows, before, after)


@pytest.mark.parametrize(
    "text",
    [over_columns(axis=2), over_columns(transposed="false")],
    ids=["softmax over queries", "weights not transposed"],
)
def test_what_only_resembles_attention_is_left_alone(text):
    assert_leaves_alone(attend_over_rows, text)
