"""compute_in_rows, as MIL text."""
# ruff: noqa: E501 - one line of MIL for each operation

import pytest
from mil_text import assert_leaves_alone, assert_rewrites
from sd_mil.rewriting.rows import compute_in_rows

COLUMNS, ROWS = "tensor<fp32, [1, 2, 1, 3]>", "tensor<fp32, [1, 3, 1, 2]>"
SWAP = "perm = tensor<int32, [4]>([0, 3, 2, 1])"
WEIGHT = "tensor<fp32, [2, 2, 1, 1]> w = const()[val = tensor<fp32, [2, 2, 1, 1]>([[[[1]], [[2]]], [[[3]], [[4]]]])];"
MATRIX = "tensor<fp32, [2, 2]>([[1, 2], [3, 4]])"
POINTWISE = (
    """pad = tensor<int32, [4]>([0, 0, 0, 0]), strides = tensor<int32, [2]>([1, 1]), groups = int32(1)"""
)


def test_a_norm_and_a_pointwise_convolution_become_layers_over_rows():
    assert_rewrites(
        compute_in_rows,
        f"""({COLUMNS} x) {{
            {WEIGHT}
            {COLUMNS} a = layer_norm(x = x, axes = tensor<int32, [1]>([1]), epsilon = fp32(0.5));
            {COLUMNS} y = conv(x = a, weight = w, {POINTWISE});
        }} -> (y);""",
        f"""({COLUMNS} x) {{
            {WEIGHT}
            {ROWS} x_as_rows = transpose(x = x, {SWAP});
            {ROWS} a_as_rows = layer_norm(x = x_as_rows, axes = tensor<int32, [1]>([3]), epsilon = fp32(0.5));
            {COLUMNS} a = transpose(x = a_as_rows, {SWAP});
            {ROWS} y_as_rows = linear(x = a_as_rows, weight = {MATRIX});
            {COLUMNS} y = transpose(x = y_as_rows, {SWAP});
        }} -> (y);""",
    )


def test_elementwise_operations_and_splits_follow_and_a_swap_back_is_known():
    half, half_rows = "tensor<fp32, [1, 1, 1, 3]>", "tensor<fp32, [1, 3, 1, 1]>"
    assert_rewrites(
        compute_in_rows,
        f"""({ROWS} r) {{
            {COLUMNS} x = transpose(x = r, {SWAP});
            {COLUMNS} a = mul(x = x, y = fp32(2));
            {half} b, {half} c = split(x = a, num_splits = int32(2), axis = int32(1));
            {ROWS} y = transpose(x = a, {SWAP});
        }} -> (b, c, y);""",
        f"""({ROWS} r) {{
            {COLUMNS} x = transpose(x = r, {SWAP});
            {ROWS} a_as_rows = mul(x = r, y = fp32(2));
            {COLUMNS} a = transpose(x = a_as_rows, {SWAP});
            {half_rows} b_as_rows, {half_rows} c_as_rows = split(x = a_as_rows, num_splits = int32(2), axis = int32(3));
            {half} b = transpose(x = b_as_rows, {SWAP});
            {half} c = transpose(x = c_as_rows, {SWAP});
            {ROWS} y = identity(x = a_as_rows);
        }} -> (b, c, y);""",
    )


@pytest.mark.parametrize(
    "operation",
    [
        f"conv(x = x, weight = w, {POINTWISE.replace('groups = int32(1)', 'groups = int32(2)')})",
        f"conv(x = x, weight = w, {POINTWISE.replace('[1, 1]', '[1, 2]')})",
        "layer_norm(x = x, axes = tensor<int32, [1]>([3]), epsilon = fp32(0.5))",
        "relu(x = x)",
    ],
    ids=["groups", "strides", "over positions", "nothing is known as rows"],
)
def test_other_operations_stay_on_columns(operation):
    assert_leaves_alone(compute_in_rows, f"({COLUMNS} x) {{ {WEIGHT} {COLUMNS} y = {operation}; }} -> (y);")
