"""fold_constants, as MIL text."""

import pytest
from mil_text import assert_leaves_alone, assert_rewrites, parsed
from sd_mil.rewriting import PassError
from sd_mil.rewriting.folding import fold_constants

MATRIX = "tensor<fp16, [2, 3]> w = const()[val = tensor<fp16, [2, 3]>([[1, 2, 3], [4, 5, 6]])];"


def test_a_transposed_weight_is_a_weight():
    assert_rewrites(
        fold_constants,
        f"""(tensor<fp16, [1, 2]> x) {{
            {MATRIX}
            tensor<fp16, [3, 2]> t = transpose(x = w, perm = tensor<int32, [2]>([1, 0]));
            tensor<fp16, [1, 3]> y = linear(x = x, weight = t);
        }} -> (y);""",
        f"""(tensor<fp16, [1, 2]> x) {{
            {MATRIX}
            tensor<fp16, [3, 2]> t = const()[val = tensor<fp16, [3, 2]>([[1, 4], [2, 5], [3, 6]])];
            tensor<fp16, [1, 3]> y = linear(x = x, weight = t);
        }} -> (y);""",
    )


def test_chains_are_folded_to_their_end():
    assert_rewrites(
        fold_constants,
        f"""(tensor<fp16, [6]> x) {{
            {MATRIX}
            tensor<fp16, [6]> a = reshape(x = w, shape = tensor<int32, [1]>([-1]));
            tensor<fp16, [1, 6]> b = expand_dims(x = a, axes = tensor<int32, [1]>([0]));
            tensor<fp16, [6]> c = squeeze(x = b, axes = tensor<int32, [1]>([0]));
            tensor<fp16, [6]> y = add(x = x, y = c);
        }} -> (y);""",
        f"""(tensor<fp16, [6]> x) {{
            {MATRIX}
            tensor<fp16, [6]> a = const()[val = tensor<fp16, [6]>([1, 2, 3, 4, 5, 6])];
            tensor<fp16, [1, 6]> b = const()[val = tensor<fp16, [1, 6]>([[1, 2, 3, 4, 5, 6]])];
            tensor<fp16, [6]> c = const()[val = tensor<fp16, [6]>([1, 2, 3, 4, 5, 6])];
            tensor<fp16, [6]> y = add(x = x, y = c);
        }} -> (y);""",
    )


def test_a_weight_that_is_widened_keeps_its_bits():
    assert_rewrites(
        fold_constants,
        """(tensor<fp32, [2]> x) {
            tensor<fp16, [2]> w = const()[val = tensor<fp16, [2]>([1, 2])];
            tensor<fp32, [2]> a = cast(x = w, dtype = string("fp32"));
            tensor<fp32, [2]> y = add(x = x, y = a);
        } -> (y);""",
        """(tensor<fp32, [2]> x) {
            tensor<fp16, [2]> w = const()[val = tensor<fp16, [2]>([1, 2])];
            tensor<fp16, [2]> a = const()[val = tensor<fp16, [2]>([1, 2])];
            tensor<fp32, [2]> y = add(x = x, y = a);
        } -> (y);""",
    )


def test_integers_computed_values_and_sizes_that_lie_are_left_alone():
    assert_leaves_alone(
        fold_constants,
        """(tensor<fp16, [2, 1]> x) {
            tensor<int32, [2, 1]> i = const()[val = tensor<int32, [2, 1]>([[1], [2]])];
            tensor<int32, [1, 2]> a = transpose(x = i, perm = tensor<int32, [2]>([1, 0]));
            tensor<fp16, [1, 2]> b = transpose(x = x, perm = tensor<int32, [2]>([1, 0]));
            tensor<fp16, [1]> w = const()[val = tensor<fp16, [1]>([1])];
            tensor<fp16, [?]> c = reshape(x = w, shape = tensor<int32, [1]>([-1]));
        } -> (a, b, c);""",
    )


def test_it_is_for_programs_whose_weights_are_decoded():
    compressed = parsed(
        """(tensor<fp16, [2]> x) {
            tensor<fp16, [2]> w = constexpr_cast()[output_dtype = string("fp16"),
                source_val = tensor<fp16, [2]>([1, 2])];
            tensor<fp16, [2]> y = add(x = x, y = w);
        } -> (y);"""
    )
    with pytest.raises(PassError, match="fold_constants requires that no layer reads a weight"):
        fold_constants.checked(compressed)
