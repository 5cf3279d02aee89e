"""Passes change the program's form and nothing that it computes."""

from collections import Counter

import numpy as np
import pytest
from mil_graphs import call, const, program, tensor, variable
from sd_mil import Operation, Reference
from sd_mil.engines.reference import compile_program as compile_reference
from sd_mil.rewriting.attention_rows import attend_over_rows
from sd_mil.rewriting.merge_heads import merge_heads
from sd_mil.rewriting.rows import compute_in_rows
from sd_mil.rewriting.unused import drop_unused

BATCH, HEADS, WIDTH, QUERIES, KEYS = 2, 3, 4, 6, 5
CHANNELS = HEADS * WIDTH
RNG = np.random.default_rng(3)


def ints(*values):
    return tensor(np.array(values, np.int32))


def scalar(value):
    return tensor(np.array(value))


def box(name, x, shape, axis, begin, end, dtype="fp16"):
    """``x`` from ``begin`` to ``end`` along ``axis``, as coremltools writes it."""
    begins, ends, mask = [0] * 4, list(shape), [True] * 4
    begins[axis], ends[axis], mask[axis] = begin, end, end == shape[axis]
    out = [end - begin if i == axis else size for i, size in enumerate(shape)]
    bounds = {"begin": ints(*begins), "end": ints(*ends), "end_mask": tensor(np.array(mask))}
    return call("slice_by_index", name, (dtype, *out), x=x, **bounds)


def head(i, *, chunks=1, scale=0.5, order=None, mask=False):
    """One head: slices of q, k and v, scores, softmax, product; queries in ``chunks`` ranges."""
    place = i if order is None else order[i]
    begin, end = place * WIDTH, (place + 1) * WIDTH
    made = [
        box(f"q{i}", "q", (BATCH, CHANNELS, 1, QUERIES), 1, i * WIDTH, (i + 1) * WIDTH),
        box(f"k{i}", "kt", (BATCH, KEYS, 1, CHANNELS), 3, begin, end),
        box(f"v{i}", "v", (BATCH, CHANNELS, 1, KEYS), 1, begin, end),
    ]
    width = QUERIES // chunks
    for j in range(chunks):
        tag, query = f"{i}_{j}", f"q{i}"
        if chunks > 1:
            query = f"q{tag}"
            made.append(box(query, f"q{i}", (BATCH, WIDTH, 1, QUERIES), 3, j * width, (j + 1) * width))
        scores = ("fp16", BATCH, KEYS, 1, width)
        made += [
            call("einsum", f"s{tag}", scores, values=(f"k{i}", query), equation=tensor("bkhc,bchq->bkhq")),
            call("mul", f"m{tag}", scores, x=f"s{tag}", y=scalar(np.float16(scale))),
            call("add", f"a{tag}", scores, x=f"m{tag}", y="mask"),
            call("softmax", f"w{tag}", scores, x=f"a{tag}" if mask else f"m{tag}", axis=scalar(np.int32(1))),
            call(
                "einsum",
                f"o{tag}",
                ("fp16", BATCH, WIDTH, 1, width),
                values=(f"v{i}", f"w{tag}"),
                equation=tensor("bchk,bkhq->bchq"),
            ),
        ]
    if chunks == 1:
        return made, f"o{i}_0"
    parts = tuple(f"o{i}_{j}" for j in range(chunks))
    joined = call(
        "concat", f"o{i}", ("fp16", BATCH, WIDTH, 1, QUERIES), values=parts, axis=scalar(np.int32(3))
    )
    return [*made, joined], f"o{i}"


def split_heads(**options):
    """An attention as SPLIT_EINSUM writes it; ``scales`` gives each head its own."""
    scales = options.pop("scales", [0.5] * HEADS)
    swap = call("transpose", "kt", ("fp16", BATCH, KEYS, 1, CHANNELS), x="k", perm=ints(0, 3, 2, 1))
    operations, outputs = [swap], []
    for i in range(HEADS):
        made, output = head(i, scale=scales[i], **options)
        operations += made
        outputs.append(output)
    shape = ("fp16", BATCH, CHANNELS, 1, QUERIES)
    operations.append(call("concat", "y", shape, values=tuple(outputs), axis=scalar(np.int32(1))))
    inputs = {
        "q": shape,
        "k": ("fp16", BATCH, CHANNELS, 1, KEYS),
        "v": ("fp16", BATCH, CHANNELS, 1, KEYS),
        "mask": ("fp16", 1, KEYS, 1, 1),
    }
    return program(inputs, operations, ["y"])


def split_by_split():
    """The same with ``split`` in place of slices, and the key transposed head by head."""
    made = split_heads()
    kept = [one for one in made.main.body.operations if one.type not in ("slice_by_index", "transpose")]
    starts = []
    for name, part, positions in (("q", "q", QUERIES), ("k", "kc", KEYS), ("v", "v", KEYS)):
        outs = tuple(variable(f"{part}{i}", ("fp16", BATCH, WIDTH, 1, positions)) for i in range(HEADS))
        settings = {"num_splits": (scalar(np.int32(HEADS)),), "axis": (scalar(np.int32(1)),)}
        starts.append(Operation("split", f"split_{name}", {"x": (Reference(name),), **settings}, outs))
    shape = ("fp16", BATCH, KEYS, 1, WIDTH)
    starts += [call("transpose", f"k{i}", shape, x=f"kc{i}", perm=ints(0, 3, 2, 1)) for i in range(HEADS)]
    inputs = {one.name: (one.type.dtype, *one.type.shape) for one in made.main.inputs}
    return program(inputs, [*starts, *kept], ["y"])


def over_columns():
    """An attention as ORIGINAL writes it."""
    columns = {"q": QUERIES, "k": KEYS, "v": KEYS}
    operations = [
        call(
            "reshape",
            f"{name}h",
            ("fp16", BATCH, HEADS, WIDTH, n),
            x=name,
            shape=ints(BATCH, HEADS, WIDTH, n),
        )
        for name, n in columns.items()
    ]
    scores, yes = ("fp16", BATCH, HEADS, QUERIES, KEYS), scalar(np.True_)
    whole = (BATCH, CHANNELS, 1, QUERIES)
    operations += [
        call("matmul", "s", scores, x="qh", y="kh", transpose_x=yes, transpose_y=scalar(np.False_)),
        call("mul", "m", scores, x=scalar(np.float16(0.5)), y="s"),
        call("softmax", "w", scores, x="m", axis=scalar(np.int32(-1))),
        call("matmul", "o", ("fp16", BATCH, HEADS, WIDTH, QUERIES), x="vh", y="w", transpose_y=yes),
        call("reshape", "y", ("fp16", *whole), x="o", shape=ints(*whole)),
    ]
    inputs = {name: ("fp16", BATCH, CHANNELS, 1, n) for name, n in columns.items()}
    return program(inputs, operations, ["y"])


def arrays(made):
    return {one.name: RNG.standard_normal(one.type.shape).astype(np.float16) for one in made.main.inputs}


def kinds(made):
    return Counter(one.type for one in made.operations())


def check_unchanged(made, rewritten):
    given = arrays(made)
    before, after = (compile_reference(one).run(given)["y"] for one in (made, rewritten))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


MERGED = {
    "slices": split_heads,
    "query chunks": lambda: split_heads(chunks=3),
    "splits": split_by_split,
}


@pytest.mark.parametrize("form", MERGED)
def test_split_heads_become_one_attention(form):
    made = MERGED[form]()
    merged = drop_unused(merge_heads(made))
    assert kinds(merged)["scaled_dot_product_attention"] == 1
    assert not {"einsum", "slice_by_index", "split", "softmax"} & set(kinds(merged))
    check_unchanged(made, merged)


LEFT_ALONE = {
    "masked": lambda: split_heads(mask=True),
    "heads of k and v in another order": lambda: split_heads(order=[1, 0, 2]),
    "one scale per head": lambda: split_heads(scales=[0.5, 0.25, 0.5]),
}


@pytest.mark.parametrize("form", LEFT_ALONE)
def test_other_attention_is_left_alone(form):
    made = LEFT_ALONE[form]()
    merged = drop_unused(merge_heads(made))
    assert kinds(merged)["einsum"] == 2 * HEADS
    assert "scaled_dot_product_attention" not in kinds(merged)
    check_unchanged(made, merged)


def test_attention_over_columns_becomes_attention_over_rows():
    made = over_columns()
    rewritten = drop_unused(attend_over_rows(made))
    assert kinds(rewritten)["scaled_dot_product_attention"] == 1
    assert "matmul" not in kinds(rewritten)
    check_unchanged(made, rewritten)


def block():
    """A feed-forward block on columns, its residual, and an attention's transposes around it."""
    columns, wide, half = (BATCH, 4, 1, 6), (BATCH, 6, 1, 6), (BATCH, 3, 1, 6)
    draw = RNG.standard_normal
    weight = const("weight", draw((6, 4, 1, 1)).astype(np.float16))
    halves = tuple(variable(name, ("fp16", *half)) for name in ("left", "right"))
    settings = {"axis": (scalar(np.int32(1)),), "num_splits": (scalar(np.int32(2)),)}
    affine = {name: tensor(draw(4).astype(np.float16)) for name in ("gamma", "beta")}
    operations = [
        weight,
        call("transpose", "rows", ("fp16", BATCH, 6, 1, 4), x="x", perm=ints(0, 3, 2, 1)),
        call("sin", "turned", ("fp16", BATCH, 6, 1, 4), x="rows"),
        call("transpose", "back", ("fp16", *columns), x="turned", perm=ints(0, 3, 2, 1)),
        call("layer_norm", "norm", ("fp16", *columns), x="back", axes=ints(1), **affine),
        call(
            "conv", "up", ("fp16", *wide), x="norm", weight="weight", bias=tensor(draw(6).astype(np.float16))
        ),
        Operation("split", "halves", {"x": (Reference("up"),), **settings}, halves),
        call("gelu", "gate", ("fp16", *half), x="right"),
        call("mul", "gated", ("fp16", *half), x="left", y="gate"),
        call("mul", "scaled", ("fp16", *half), x="gated", y=scalar(np.float16(0.5))),
        call(
            "conv",
            "down",
            ("fp16", *columns),
            x="scaled",
            weight=tensor(draw((4, 3, 1, 1)).astype(np.float16)),
            pad_type=tensor("valid"),
        ),
        call("add", "y", ("fp16", *columns), x="down", y="x"),
    ]
    return program({"x": ("fp16", *columns)}, operations, ["y"])


def test_blocks_are_computed_in_rows():
    made = block()
    rewritten = drop_unused(compute_in_rows(made))
    assert kinds(rewritten)["linear"] == 2
    assert "conv" not in kinds(rewritten)
    assert kinds(rewritten)["transpose"] == 2, "one in, one out"
    check_unchanged(made, rewritten)


@pytest.mark.parametrize(
    "settings",
    [
        {"strides": ints(1, 2)},
        {"pad_type": tensor("custom"), "pad": ints(0, 0, 1, 1)},
        {"groups": scalar(np.int32(2)), "weight": tensor(np.ones((6, 2, 1, 1), np.float16))},
        {"weight": tensor(np.ones((6, 4, 1, 3), np.float16))},
    ],
    ids=["strides", "padding", "groups", "kernel"],
)
def test_other_convolutions_stay(settings):
    x = ("fp16", BATCH, 4, 1, 7)
    given = {"weight": tensor(np.ones((6, 4, 1, 1), np.float16)), **settings}
    positions = {"strides": 4, "pad_type": 9, "weight": 5}.get(next(iter(settings)), 7)
    made = program({"x": x}, [call("conv", "y", ("fp16", BATCH, 6, 1, positions), x="x", **given)], ["y"])
    rewritten = drop_unused(compute_in_rows(made))
    assert kinds(rewritten) == {"conv": 1}
    check_unchanged(made, rewritten)


def test_unused_operations_go_and_used_ones_stay():
    one = ("fp16", 2)
    made = program(
        {"x": one},
        [
            call("relu", "a", one, x="x"),
            call("exp", "b", one, x="a"),
            call("sin", "c", one, x="b"),
            call("cos", "y", one, x="a"),
        ],
        ["y"],
    )
    assert [operation.name for operation in drop_unused(made).operations()] == ["a", "y"]


@pytest.mark.parametrize("form", [*MERGED.values(), *LEFT_ALONE.values(), over_columns, block])
def test_the_portable_engine_computes_the_same_either_way(form):
    pytest.importorskip("openvino")
    from sd_mil.engines.portable import compile_program

    made = form()
    given = arrays(made)
    expected = compile_reference(made).run(given)["y"]
    np.testing.assert_allclose(compile_program(made).run(given)["y"], expected, rtol=2e-3, atol=2e-3)
