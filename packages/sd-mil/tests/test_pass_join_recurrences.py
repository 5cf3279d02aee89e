"""join_recurrences, as MIL text, and against the loop itself on the reference engine."""
# ruff: noqa: E501 - one line of MIL for each operation

import json

import numpy as np
import pytest
from mil_text import assert_leaves_alone, assert_rewrites, parsed
from sd_mil.engines.reference import compile_program as compile_reference
from sd_mil.rewriting import join_recurrences

S, N, D, H = 3, 2, 4, 1
STATE, PRE = f"tensor<fp32, [{N}, {H}]>", f"tensor<fp32, [{N}, {4 * H}]>"
XS, LIST = f"tensor<fp32, [{S}, {N}, {D}]>", f"list<tensor<fp32, [{N}, {H}]>, {S}>"
MADE = f"""make_list(init_length = int32({S}), dynamic_length = bool(false), dtype = string("fp32"),
    elem_shape = (int32({N}), int32({H})))"""
PLACES = f"tensor<int32, [{S}]>({list(range(S))})"


def matrix(rows, columns, start=0):
    """Numbers that are exact in fp32, and small."""
    values = ((np.arange(rows * columns) * 5 + start) % 9 - 4).reshape(rows, columns) / 8
    return f"tensor<fp32, [{rows}, {columns}]>({values.tolist()})"


BIAS = f"tensor<fp32, [{4 * H}]>({[0.5, -0.25, 0.125, 1.0]})"
JOINED = f"""tensor<fp32, [{N}, {D + H}]> xh = concat(values = (x, h), axis = int32(1), interleave = bool(false));
    {PRE} g = linear(x = xh, weight = {matrix(4 * H, D + H)}, bias = {BIAS});"""
APART = f"""{PRE} a = matmul(x = x, y = {matrix(D, 4 * H)}, transpose_x = bool(false), transpose_y = bool(false));
    {PRE} b = matmul(x = h, y = {matrix(4 * H, H)}, transpose_x = bool(false), transpose_y = bool(true));
    {PRE} ab = add(x = b, y = a);
    {PRE} g = add(x = {BIAS}, y = ab);"""
LESS = f"bool more = less(x = i0, y = int32({S}));"


def loop(
    *,
    gates="first, forget, last, entry",
    pre=JOINED,
    forget="sigmoid(x = forget)",
    read="gather(x = xs, indices = i, axis = int32(0))",
    cell="tanh(x = c1)",
    condition=LESS,
    start=0,
    written="h1",
):
    """An LSTM over xs; ``gates`` is their order in the sum."""
    parts = ", ".join(f"{STATE} {name.strip()}" for name in gates.split(","))
    return f"""({XS} xs, {STATE} h_first, {STATE} c_first) {{
        {LIST} ys = {MADE};
        int32 zero = const()[val = int32({start})];
        int32 n, {LIST} all, {STATE} h_last, {STATE} c_last = while_loop(loop_vars = (zero, ys, h_first, c_first))
            block0(int32 i0, {LIST} l0, {STATE} h0, {STATE} c0) {{ {condition} }} -> (more);
            block1(int32 i, {LIST} l, {STATE} h, {STATE} c) {{
                tensor<fp32, [{N}, {D}]> x = {read};
                {pre}
                {parts} = split(x = g, num_splits = int32(4), axis = int32(-1));
                {STATE} f = {forget};
                {STATE} e = sigmoid(x = first);
                {STATE} z = tanh(x = entry);
                {STATE} o = sigmoid(x = last);
                {STATE} fc = mul(x = c, y = f);
                {STATE} ez = mul(x = e, y = z);
                {STATE} c1 = add(x = ez, y = fc);
                {STATE} t = {cell};
                {STATE} h1 = mul(x = t, y = o);
                {LIST} l1 = list_write(ls = l, index = i, value = {written});
                int32 i1 = add(x = i, y = int32(1));
            }} -> (i1, l1, h1, c1);
        {XS.replace(f"{D}]", f"{H}]")} y = list_gather(ls = all, indices = {PLACES});
    }} -> (y, h_last, c_last, n);"""


def lstm(ih, hh, bias):
    return f"""({XS} xs, {STATE} h_first, {STATE} c_first) {{
        {LIST} ys = {MADE};
        int32 zero = const()[val = int32(0)];
        {XS} h_last_steps = slice_by_index(x = xs, begin = tensor<int32, [3]>([0, 0, 0]),
            end = tensor<int32, [3]>([{S}, 0, 0]), end_mask = tensor<bool, [3]>([false, true, true]));
        {XS.replace(f"{D}]", f"{H}]")} h_last_all, {STATE} h_last, {STATE} c_last = lstm(x = h_last_steps,
            initial_h = h_first, initial_c = c_first, weight_ih = {ih}, weight_hh = {hh}, bias = {bias},
            output_sequence = bool(true));
        {LIST} all = list_scatter(ls = ys, indices = {PLACES}, value = h_last_all);
        int32 n = const()[val = int32({S})];
        {XS.replace(f"{D}]", f"{H}]")} y = list_gather(ls = all, indices = {PLACES});
    }} -> (y, h_last, c_last, n);"""


def test_a_loop_is_one_layer():
    rows = json.loads(matrix(D, 4 * H).partition("(")[2][:-1])
    transposed = f"tensor<fp32, [{4 * H}, {D}]>({np.array(rows).T.tolist()})"
    assert_rewrites(join_recurrences, loop(pre=APART), lstm(transposed, matrix(4 * H, H), BIAS))


ARRAYS = {
    "xs": np.random.default_rng(0).standard_normal((S, N, D)).astype(np.float32),
    "h_first": np.float32([[0.5], [-1]]),
    "c_first": np.float32([[2], [0.25]]),
}
AND = f"""bool a = less(x = i0, y = int32({S})); bool b = less(x = i0, y = int32({S + 4}));
    bool more = logical_and(x = b, y = a);"""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pre": APART},
        {"gates": "first, forget, entry, last"},
        {"gates": "entry, last, first, forget"},
        {"forget": f"sigmoid(x = more_f); {STATE} unused = relu(x = f)", "pre": JOINED},
        {"condition": AND},
        {"read": "list_read(ls = steps, index = i)"},
        {"condition": LESS.replace(f"int32({S})", "int32(2)")},
    ],
)
def test_it_computes_what_the_loop_computes(options):
    text = loop(**options)
    if "more_f" in text:  # TensorFlow's forget bias
        text = text.replace(f"{STATE} f =", f"{STATE} more_f = add(x = forget, y = fp32(1)); {STATE} f =", 1)
    if "ls = steps" in text:
        steps = f"list<tensor<fp32, [{N}, {D}]>, {S}>"
        filled = f"{steps} steps = list_scatter(ls = empty, indices = {PLACES}, value = xs);"
        empty = f"{steps} empty = {MADE.replace(f'int32({H})))', f'int32({D})))')}; {filled}"
        text = text.replace(f"{LIST} ys =", f"{empty} {LIST} ys =", 1)
    made = parsed(text)
    rewritten = join_recurrences.checked(made)
    assert [one.type for one in rewritten.operations()].count("lstm") == 1
    expected = compile_reference(made).run(ARRAYS)
    for name, value in compile_reference(rewritten).run(ARRAYS).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)


def test_the_portable_engine_runs_it_as_one_layer():
    pytest.importorskip("openvino")
    from sd_mil.engines.portable import compile_program

    made = parsed(loop())
    compiled = compile_program(made)
    assert "while_loop" not in compiled.arithmetic
    expected = compile_reference(made).run(ARRAYS)
    for name, value in compiled.run(ARRAYS).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)


def test_casts_in_the_loop_are_looked_through():
    """As coremltools makes programs fp16: what is carried from step to step stays fp32."""
    half = STATE.replace("fp32", "fp16")
    text = loop().replace(f"{STATE} h1 = mul(x = t, y = o)", f"{half} h2 = mul(x = t, y = o)")
    text = text.replace(f"{LIST} l1 =", f'{STATE} h1 = cast(x = h2, dtype = string("fp32")); {LIST} l1 =')
    rewritten = join_recurrences.checked(parsed(text))
    assert [one.type for one in rewritten.operations()].count("lstm") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "relu(x = c1)"},
        {"forget": "relu(x = forget)"},
        {"read": "gather(x = xs, indices = int32(0), axis = int32(0))"},
        {"condition": "bool more = less(x = int32(0), y = i0);"},
        {"start": 1},
        {"written": "c1"},
        {"gates": "first, first_too, last, entry", "forget": "sigmoid(x = h)"},
    ],
    ids=["cell", "forget", "always the first", "condition", "start", "cells written", "not of the sum"],
)
def test_other_loops_are_left_alone(options):
    assert_leaves_alone(join_recurrences, loop(**options))


def test_sums_of_themselves_are_not_followed_for_ever():
    """Each is twice the one before: 2 to the power of 40 ways to its start."""
    doubled = "".join(f"{PRE} g{i + 1} = add(x = g{i}, y = g{i});" for i in range(40))
    pre = JOINED.replace(f"{PRE} g =", f"{PRE} g0 =") + doubled + f"{PRE} g = add(x = g40, y = g40);"
    assert_leaves_alone(join_recurrences, loop(pre=pre))
