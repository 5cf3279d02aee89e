"""split_attention_batch and split_softmax: as MIL text, and every form against itself in one piece."""
# ruff: noqa: E501 - one line of MIL for each operation

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_text import assert_leaves_alone, assert_rewrites, parsed
from sd_mil.engines.reference import compile_program
from sd_mil.rewriting.attention_pieces import split_attention_batch, split_softmax
from sd_mil.rewriting.scores import attentions, batch_of


def fused(batch, queries=3, keys=4, mask=""):
    declared = f", tensor<fp16, {mask}> m" if mask else ""
    return f"""(tensor<fp16, [{batch}, 2, {queries}, 5]> q, tensor<fp16, [{batch}, 2, {keys}, 5]> k, tensor<fp16, [{batch}, 2, {keys}, 5]> v{declared}) {{
        tensor<fp16, [{batch}, 2, {queries}, 5]> y = scaled_dot_product_attention(query = q, key = k, value = v{", attn_mask = m" if mask else ""});
    }} -> (y);"""


def products(batch, queries=3, keys=4, mask="[1, 2, 3, 4]"):
    """As Swin's attention in coremltools#2650."""
    return f"""(tensor<fp16, [{batch}, 2, {queries}, 5]> q, tensor<fp16, [{batch}, 2, {keys}, 5]> k, tensor<fp16, [{batch}, 2, {keys}, 5]> v, tensor<fp16, {mask}> m) {{
        tensor<fp16, [{batch}, 2, {queries}, {keys}]> s = matmul(x = q, y = k, transpose_y = bool(true));
        tensor<fp16, [{batch}, 2, {queries}, {keys}]> a = add(x = s, y = m);
        tensor<fp16, [{batch}, 2, {queries}, {keys}]> w = softmax(x = a, axis = int32(3));
        tensor<fp16, [{batch}, 2, {queries}, 5]> y = matmul(x = w, y = v);
    }} -> (y);"""


def columns(batch, queries, keys):
    """As Apple's ORIGINAL: channels before positions, weights on the right."""
    return f"""(tensor<fp16, [{batch}, 2, 5, {queries}]> q, tensor<fp16, [{batch}, 2, 5, {keys}]> k, tensor<fp16, [{batch}, 2, 5, {keys}]> v) {{
        tensor<fp16, [{batch}, 2, {queries}, {keys}]> s = matmul(x = q, y = k, transpose_x = bool(true));
        tensor<fp16, [{batch}, 2, {queries}, {keys}]> w = softmax(x = s, axis = int32(-1));
        tensor<fp16, [{batch}, 2, 5, {queries}]> y = matmul(x = v, y = w, transpose_y = bool(true));
    }} -> (y);"""


def rows_are_keys(batch, queries, keys):
    return f"""(tensor<fp16, [{batch}, 2, {keys}, 5]> k, tensor<fp16, [{batch}, 2, {queries}, 5]> q, tensor<fp16, [{batch}, 2, 5, {keys}]> v) {{
        tensor<fp16, [{batch}, 2, {keys}, {queries}]> s = matmul(x = k, y = q, transpose_y = bool(true));
        tensor<fp16, [{batch}, 2, {keys}, {queries}]> w = softmax(x = s, axis = int32(2));
        tensor<fp16, [{batch}, 2, 5, {queries}]> y = matmul(x = v, y = w);
    }} -> (y);"""


def einsums(batch, queries, keys):
    """As SPLIT_EINSUM."""
    return f"""(tensor<fp16, [{batch}, 5, 1, {queries}]> q, tensor<fp16, [{batch}, {keys}, 1, 5]> k, tensor<fp16, [{batch}, 5, 1, {keys}]> v) {{
        tensor<fp16, [{batch}, {keys}, 1, {queries}]> s = einsum(values = (k, q), equation = string("bkhc,bchq->bkhq"));
        tensor<fp16, [{batch}, {keys}, 1, {queries}]> a = mul(x = s, y = fp16(0x1p-1));
        tensor<fp16, [{batch}, {keys}, 1, {queries}]> w = softmax(x = a, axis = int32(1));
        tensor<fp16, [{batch}, 5, 1, {queries}]> y = einsum(values = (v, w), equation = string("bchk,bkhq->bchq"));
    }} -> (y);"""


FORMS = {
    "fused": fused,
    "products": lambda batch, queries, keys: products(batch, queries, keys, f"[1, 2, {queries}, {keys}]"),
    "columns": columns,
    "rows are keys": rows_are_keys,
    "einsums": einsums,
    "masked": lambda batch, queries, keys: fused(batch, queries, keys, f"[{batch}, 1, {queries}, {keys}]"),
}


def run(program):
    rng = np.random.default_rng(0)
    arrays = {one.name: rng.standard_normal(one.type.shape).astype(np.float16) for one in program.main.inputs}
    return compile_program(program).run(arrays)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10, deadline=None)
@given(st.integers(10, 21), st.integers(1, 4), st.integers(1, 4))
def test_a_batch_in_pieces_is_the_batch(form, batch, queries, keys):
    before = parsed(FORMS[form](batch, queries, keys))
    after = split_attention_batch.checked(before)
    found = [batch_of(one) for one in attentions(after.main.body)]
    assert sum(found) == batch
    assert max(found) <= 9
    np.testing.assert_array_equal(run(before)["y"], run(after)["y"])


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(2, 9), st.integers(1, 9), st.integers(1, 60))
def test_queries_in_pieces_are_the_queries(form, batch, queries, keys, largest):
    largest = max(largest, batch * 2 * keys)  # one query at least
    before = parsed(FORMS[form](batch, queries, keys))
    after = split_softmax.checked(before, largest)
    sizes = [one.elements for one in attentions(after.main.body)]
    whole = sum(sizes)
    assert max(sizes) <= largest
    assert len(sizes) == -(-queries // (largest * queries // whole))
    np.testing.assert_allclose(run(before)["y"], run(after)["y"], rtol=2e-6, atol=1e-6)


def test_the_text_of_a_batch_in_pieces():
    def cut(name, part, begin, end):
        return f"""
            tensor<int32, [4]> {name}_{part}_begin = const()[name = string("{name}_{part}_begin"), val = tensor<int32, [4]>([{begin}, 0, 0, 0])];
            tensor<int32, [4]> {name}_{part}_end = const()[name = string("{name}_{part}_end"), val = tensor<int32, [4]>([{end}, 2, 1, 5])];
            tensor<fp16, [5, 2, 1, 5]> {name}_{part} = slice_by_index(x = {name}, begin = {name}_{part}_begin, end = {name}_{part}_end)[name = string("{name}_{part}")];"""

    def piece(part, begin, end):
        cuts = "".join(cut(name, part, begin, end) for name in "qkv")
        return f"""{cuts}
            tensor<fp16, [5, 2, 1, 5]> y_{part} = scaled_dot_product_attention(query = q_{part}, key = k_{part}, value = v_{part})[name = string("y_{part}")];"""

    before = fused(10, queries=1, keys=1)
    after = f"""{before[: before.index("{")]} {{ {piece(0, 0, 5)} {piece(1, 5, 10)}
            int32 y_axis = const()[name = string("y_axis"), val = int32(-4)];
            bool y_interleave = const()[name = string("y_interleave"), val = bool(false)];
            tensor<fp16, [10, 2, 1, 5]> y = concat(values = (y_0, y_1), axis = y_axis, interleave = y_interleave)[name = string("y")];
        }} -> (y);"""
    assert_rewrites(split_attention_batch, before, after)


def test_small_ones_are_left_alone():
    assert_leaves_alone(split_attention_batch, fused(9))
    assert_leaves_alone(split_attention_batch, products(9))
    assert_leaves_alone(split_softmax, products(10))


def test_a_softmax_of_no_attention_is_taken_over_slices():
    text = """(tensor<fp16, [7, 3]> x) {
        tensor<fp16, [7, 3]> y = softmax(x = x, axis = int32(1));
    } -> (y);"""
    before = parsed(text)
    after = split_softmax.checked(before, 9)
    softmaxes = [one for one in after.operations() if one.type == "softmax"]
    assert [one.outputs[0].type.shape for one in softmaxes] == [(2, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(run(before)["y"], run(after)["y"])
