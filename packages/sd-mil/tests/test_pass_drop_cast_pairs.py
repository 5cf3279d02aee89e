"""drop_cast_pairs, as MIL text."""
# ruff: noqa: E501 - one line of MIL for each operation

import pytest
from mil_text import assert_leaves_alone, assert_rewrites
from sd_mil.rewriting.cast_pairs import drop_cast_pairs

MOVED = """(tensor<fp16, [2, 3]> x) {
    tensor<fp32, [2, 3]> a = cast(x = x, dtype = string("fp32"))[name = string("a")];
    tensor<fp32, [3, 2]> b = transpose(x = a, perm = tensor<int32, [2]>([1, 0]))[name = string("b")];
    tensor<fp16, [3, 2]> c = cast(x = b, dtype = string("fp16"))[name = string("c")];
    tensor<fp16, [3, 2]> y = relu(x = c)[name = string("y")];
} -> (y);"""


def test_what_is_only_moved_stays_in_fp16():
    assert_rewrites(
        drop_cast_pairs,
        MOVED,
        """(tensor<fp16, [2, 3]> x) {
            tensor<fp16, [3, 2]> b_fp16 = transpose(x = x, perm = tensor<int32, [2]>([1, 0]))[name = string("b_fp16")];
            tensor<fp16, [3, 2]> y = relu(x = b_fp16)[name = string("y")];
        } -> (y);""",
    )


def test_an_output_keeps_its_name():
    assert_rewrites(
        drop_cast_pairs,
        MOVED.replace("-> (y)", "-> (c)"),
        """(tensor<fp16, [2, 3]> x) {
            tensor<fp16, [3, 2]> b_fp16 = transpose(x = x, perm = tensor<int32, [2]>([1, 0]))[name = string("b_fp16")];
            tensor<fp16, [3, 2]> c = identity(x = b_fp16)[name = string("c")];
        } -> (c);""",
    )


@pytest.mark.parametrize(
    "text",
    [
        MOVED.replace("transpose(x = a, perm = tensor<int32, [2]>([1, 0]))", "exp(x = a)").replace(
            "[3, 2]", "[2, 3]"
        ),
        MOVED.replace("fp16", "half").replace("fp32", "fp16").replace("half", "fp32"),
    ],
    ids=["something is computed", "rounded to fp16 and back"],
)
def test_casts_that_change_numbers_stay(text):
    assert_leaves_alone(drop_cast_pairs, text)
