"""merge_heads, as MIL text: two heads of two channels, of three queries and two keys."""
# ruff: noqa: E501 - one line of MIL for each operation

import pytest
from mil_text import assert_leaves_alone, assert_rewrites
from sd_mil.rewriting.merge_heads import merge_heads

HEAD, SCORES, OUT = "tensor<fp32, [1, 2, 1, 3]>", "tensor<fp32, [1, 2, 1, 3]>", "tensor<fp32, [1, 2, 1, 3]>"
INPUTS = """(tensor<fp32, [1, 4, 1, 3]> q, tensor<fp32, [1, 4, 1, 2]> k, tensor<fp32, [1, 4, 1, 2]> v)"""


def head(i, *, scale="0.5", key=None):
    """One head as SPLIT_EINSUM writes it; ``key``: which head's keys it takes."""
    return f"""
        tensor<fp32, [1, 2, 1, 2]> k{i} = slice_by_index(x = kt, {box(3, i if key is None else key, (1, 2, 1, 4))});
        {SCORES} s{i} = einsum(values = (k{i}, q{i}), equation = string("bkhc,bchq->bkhq"));
        {SCORES} m{i} = mul(x = s{i}, y = fp32({scale}));
        {SCORES} w{i} = softmax(x = m{i}, axis = int32(1));
        {OUT} o{i} = einsum(values = (v{i}, w{i}), equation = string("bchk,bkhq->bchq"));"""


def box(axis, i, sizes):
    begin, end = [0] * 4, list(sizes)
    begin[axis], end[axis] = 2 * i, 2 * i + 2
    return f"begin = tensor<int32, [4]>({begin}), end = tensor<int32, [4]>({end})"


def split(*heads, join="axis = int32(1), interleave = bool(false)"):
    settings = "num_splits = int32(2), axis = int32(1)"
    return f"""{INPUTS} {{
        tensor<fp32, [1, 2, 1, 4]> kt = transpose(x = k, perm = tensor<int32, [4]>([0, 3, 2, 1]));
        {HEAD} q0, {HEAD} q1 = split(x = q, {settings});
        tensor<fp32, [1, 2, 1, 2]> v0, tensor<fp32, [1, 2, 1, 2]> v1 = split(x = v, {settings});
        {"".join(heads)}
        tensor<fp32, [1, 4, 1, 3]> y = concat(values = (o0, o1), {join});
    }} -> (y);"""


def rows(name, source, positions):
    """A value as [batch, heads, positions, width]."""
    return f"""
        tensor<fp32, [1, {positions}, 1, 4]> y_{name}_rows = transpose(x = {source}, perm = tensor<int32, [4]>([0, 3, 2, 1]));
        tensor<fp32, [1, {positions}, 2, 2]> y_{name}_positions = reshape(x = y_{name}_rows, shape = tensor<int32, [4]>([1, {positions}, 2, 2]));
        tensor<fp32, [1, 2, {positions}, 2]> y_{name}_heads = transpose(x = y_{name}_positions, perm = tensor<int32, [4]>([0, 2, 1, 3]));"""


def merged(before):
    """What stands before the concat stays, for others; the result is attention over all heads."""
    start = before[: before.index("tensor<fp32, [1, 4, 1, 3]> y =")]
    return f"""{start}{rows("query", "q", 3)}{rows("key", "k", 2)}{rows("value", "v", 2)}
        tensor<fp32, [1, 2, 3, 2]> y_query_scaled = mul(x = y_query_heads, y = fp32(0x1.6a09e6p-1));
        tensor<fp32, [1, 2, 3, 2]> y_attended = scaled_dot_product_attention(
            query = y_query_scaled, key = y_key_heads, value = y_value_heads);
        tensor<fp32, [1, 3, 2, 2]> y_positions = transpose(x = y_attended, perm = tensor<int32, [4]>([0, 2, 1, 3]));
        tensor<fp32, [1, 3, 1, 4]> y_rows = reshape(x = y_positions, shape = tensor<int32, [4]>([1, 3, 1, 4]));
        tensor<fp32, [1, 4, 1, 3]> y = transpose(x = y_rows, perm = tensor<int32, [4]>([0, 3, 2, 1]));
    }} -> (y);"""


def test_heads_are_attended_at_once():
    before = split(head(0), head(1))
    assert_rewrites(merge_heads, before, merged(before))


@pytest.mark.parametrize(
    "text",
    [
        split(head(0), head(1, key=0)),
        split(head(0), head(1, scale="0.25")),
        split(head(0), head(1), join="axis = int32(1), interleave = bool(true)"),
    ],
    ids=["keys of another head", "scales", "interleaved"],
)
def test_heads_that_are_not_all_alike_are_left_alone(text):
    assert_leaves_alone(merge_heads, text)
