"""drop_casts, as MIL text."""

from mil_text import assert_leaves_alone, assert_rewrites
from sd_mil.rewriting.casts import drop_casts


def test_what_is_cast_between_floats_is_read_uncast():
    assert_rewrites(
        drop_casts,
        """(tensor<fp16, [2, 3]> x) {
            tensor<fp32, [2, 3]> a = cast(x = x, dtype = string("fp32"));
            tensor<fp32, [2, 3]> b = softmax(x = a, axis = int32(-1));
            tensor<fp16, [2, 3]> c = cast(x = b, dtype = string("fp16"));
            tensor<fp16, [2, 3]> y = add(x = c, y = c);
        } -> (y);""",
        """(tensor<fp16, [2, 3]> x) {
            tensor<fp32, [2, 3]> a = cast(x = x, dtype = string("fp32"));
            tensor<fp32, [2, 3]> b = softmax(x = x, axis = int32(-1));
            tensor<fp16, [2, 3]> c = cast(x = b, dtype = string("fp16"));
            tensor<fp16, [2, 3]> y = add(x = b, y = b);
        } -> (y);""",
    )


def test_chains_are_followed_to_their_start_and_outputs_keep_their_names():
    assert_rewrites(
        drop_casts,
        """(tensor<fp16, [2]> x) {
            tensor<fp32, [2]> a = cast(x = x, dtype = string("fp32"));
            tensor<fp16, [2]> b = cast(x = a, dtype = string("fp16"));
            tensor<fp32, [2]> y = cast(x = b, dtype = string("fp32"));
        } -> (y);""",
        """(tensor<fp16, [2]> x) {
            tensor<fp32, [2]> a = cast(x = x, dtype = string("fp32"));
            tensor<fp16, [2]> b = cast(x = x, dtype = string("fp16"));
            tensor<fp32, [2]> y = cast(x = x, dtype = string("fp32"));
        } -> (y);""",
    )


def test_casts_that_change_numbers_stay():
    assert_leaves_alone(
        drop_casts,
        """(tensor<fp16, [2]> x, tensor<int32, [2]> i) {
            tensor<int32, [2]> a = cast(x = x, dtype = string("int32"));
            tensor<fp16, [2]> b = cast(x = i, dtype = string("fp16"));
            tensor<fp16, [2]> c = cast(x = a, dtype = string("fp16"));
            tensor<fp16, [2]> y = add(x = b, y = c);
        } -> (y);""",
    )


def test_nested_blocks_read_the_cast():
    assert_leaves_alone(
        drop_casts,
        """(tensor<fp16, [2]> x, bool p) {
            tensor<fp32, [2]> a = cast(x = x, dtype = string("fp32"));
            tensor<fp32, [2]> y = cond(pred = p)
                block0() { tensor<fp32, [2]> b = relu(x = a); } -> (b);
                block1() { tensor<fp32, [2]> c = exp(x = a); } -> (c);
        } -> (y);""",
    )
