"""decode_constants, as MIL text."""

from mil_text import assert_leaves_alone, assert_rewrites
from sd_mil.rewriting import decode_constants

#: 0, 1, 2, 3, 1, 0 at two bits each, least significant first.
PALETTE = """constexpr_lut_to_dense()[indices = tensor<uint8, [2]>([228, 1]),
    lut = tensor<fp16, [4]>([0, 0.5, 2, -4]), shape = tensor<uint32, [2]>([2, 3])]"""
DENSE = "const()[val = tensor<fp16, [2, 3]>([[0, 0.5, 2], [-4, 0.5, 0]])]"


def test_a_palette_is_looked_up():
    assert_rewrites(
        decode_constants,
        f"""(tensor<fp16, [2, 3]> x) {{
            tensor<fp16, [2, 3]> w = {PALETTE};
            tensor<fp16, [2, 3]> y = add(x = x, y = w);
        }} -> (y);""",
        f"""(tensor<fp16, [2, 3]> x) {{
            tensor<fp16, [2, 3]> w = {DENSE};
            tensor<fp16, [2, 3]> y = add(x = x, y = w);
        }} -> (y);""",
    )


def test_what_only_another_decoder_reads_has_no_reader_left():
    assert_rewrites(
        decode_constants,
        """(tensor<fp16, [2, 2]> x) {
            tensor<fp16, [1, 1, 4, 1]> lut = constexpr_blockwise_shift_scale(
                data = tensor<int8, [1, 1, 4, 1]>([[[[0], [1], [2], [-4]]]]),
                scale = tensor<fp16, [1, 1, 1, 1]>([[[[0.5]]]]));
            tensor<fp16, [2, 2]> w = constexpr_lut_to_dense(
                indices = tensor<uint2, [2, 2]>([[0, 1], [2, 3]]), lut = lut);
            tensor<fp16, [2, 2]> y = add(x = x, y = w);
        } -> (y);""",
        """(tensor<fp16, [2, 2]> x) {
            tensor<fp16, [1, 1, 4, 1]> lut = constexpr_blockwise_shift_scale(
                data = tensor<int8, [1, 1, 4, 1]>([[[[0], [1], [2], [-4]]]]),
                scale = tensor<fp16, [1, 1, 1, 1]>([[[[0.5]]]]));
            tensor<fp16, [2, 2]> w = const()[val = tensor<fp16, [2, 2]>([[0, 0.5], [1, -2]])];
            tensor<fp16, [2, 2]> y = add(x = x, y = w);
        } -> (y);""",
    )


def test_a_program_without_compressed_weights_is_left_alone():
    assert_leaves_alone(
        decode_constants, f"(tensor<fp16, [2, 3]> x) {{ tensor<fp16, [2, 3]> w = {DENSE}; }} -> (w);"
    )
