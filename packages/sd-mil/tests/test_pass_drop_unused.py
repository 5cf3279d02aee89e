"""drop_unused, as MIL text."""

from mil_text import assert_leaves_alone, assert_rewrites
from sd_mil.rewriting.unused import drop_unused


def test_what_nothing_needs_is_dropped_with_all_that_led_to_it():
    assert_rewrites(
        drop_unused,
        """(tensor<fp16, [2]> x) {
            tensor<fp16, [2]> a = relu(x = x);
            tensor<fp16, [2]> b = exp(x = x);
            tensor<fp16, [2]> c = add(x = b, y = a);
        } -> (a);""",
        """(tensor<fp16, [2]> x) {
            tensor<fp16, [2]> a = relu(x = x);
        } -> (a);""",
    )


def test_what_a_nested_block_reads_and_what_a_state_is_given_stays():
    assert_leaves_alone(
        drop_unused,
        """(tensor<fp16, [2]> x, state<tensor<fp16, [2]>> kept, bool p) {
            tensor<fp16, [2]> a = relu(x = x);
            tensor<fp16, [2]> b = exp(x = x);
            write_state(input = kept, data = b);
            tensor<fp16, [2]> y = cond(pred = p)
                block0() { tensor<fp16, [2]> c = relu(x = a); } -> (c);
                block1() { tensor<fp16, [2]> d = exp(x = x); } -> (d);
        } -> (y);""",
    )


def test_of_several_outputs_one_is_enough():
    assert_leaves_alone(
        drop_unused,
        """(tensor<fp16, [2]> x) {
            tensor<fp16, [1]> a, tensor<fp16, [1]> b = split(x = x, num_splits = int32(2), axis = int32(0));
        } -> (b);""",
    )
