"""Normalisations, casts and folded constants: another form, the same numbers, on both engines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_graphs import call, const, program, tensor

pytest.importorskip("openvino")

from sd_mil.engines.portable import compile_program as compile_portable
from sd_mil.engines.reference import compile_program as compile_reference
from sd_mil.rewriting.casts import drop_casts
from sd_mil.rewriting.folding import fold_constants
from sd_mil.rewriting.standardise import standardise
from sd_mil.rewriting.unused import drop_unused

RNG = np.random.default_rng(5)


def ints(*values):
    return tensor(np.array(values, np.int32))


def types(made):
    return [operation.type for operation in made.main.body.operations if operation.type != "const"]


def assert_same(made, rewritten, x, tolerance=2e-6):
    """Both programs on both engines; fp32 values all along, so that only the order of sums differs."""
    expected = compile_reference(made).run({"x": x})
    for compiled in (compile_reference(rewritten), compile_portable(rewritten), compile_portable(made)):
        for name, value in compiled.run({"x": x}).items():
            np.testing.assert_allclose(value, expected[name], rtol=tolerance, atol=tolerance)


def norm(shape, axes, *, form="div", epsilon=1e-5, own=None, extra=()):
    """A normalisation over ``axes`` as coremltools (div) and Apple's LayerNorm (rsqrt) write it."""
    kept = [1 if axis in [a % len(shape) for a in axes] else size for axis, size in enumerate(shape)]
    whole, mean = ("fp32", *shape), ("fp32", *kept)
    keep = {"axes": ints(*axes), "keep_dims": tensor(np.array(True))}
    squared = {"div": ("square", {"x": "d"}), "rsqrt": ("mul", {"x": "d", "y": "d"})}[form]
    steps = [
        call("reduce_mean", "m", mean, x="x", **keep),
        call("sub", "d", whole, x="x", y="m"),
        call(squared[0], "q", whole, **squared[1]),
        call("reduce_mean", "v", mean, x="q", **keep),
        call("add", "e", mean, x="v", y=tensor(np.float32(epsilon))),
    ]
    if form == "div":
        steps += [call("sqrt", "r", mean, x="e"), call("real_div", "y", whole, x="d", y="r")]
    else:
        given = {} if own is None else {"epsilon": tensor(np.float32(own))}
        steps += [call("rsqrt", "r", mean, x="e", **given), call("mul", "y", whole, x="r", y="d")]
    return program({"x": whole}, [*steps, *extra], [extra[-1].outputs[0].name if extra else "y"])


@given(
    case=st.sampled_from(
        [((2, 4, 3, 5, 2), (2, 3, 4)), ((2, 6, 1, 7), (1,)), ((2, 6, 1, 7), (-3,)), ((3, 8), (-1,))]
    ),
    form=st.sampled_from(["div", "rsqrt"]),
    own=st.sampled_from([None, 1e-3]),
    epsilon=st.sampled_from([1e-5, 0.1]),
)
@settings(max_examples=12, deadline=None)
def test_a_normalisation_becomes_one_operation(case, form, own, epsilon):
    made = norm(*case, form=form, own=own, epsilon=epsilon)
    rewritten = drop_unused(standardise(made))
    assert types(rewritten) == ["layer_norm"]
    assert_same(made, rewritten, RNG.standard_normal(case[0]).astype(np.float32), 1e-5)


def test_it_is_torchs_group_norm():
    torch = pytest.importorskip("torch")
    x = RNG.standard_normal((2, 6, 5, 4)).astype(np.float32)
    grouped = program(
        {"x": ("fp32", 2, 3, 2, 5, 4)}, norm((2, 3, 2, 5, 4), (2, 3, 4)).main.body.operations, ["y"]
    )
    result = compile_portable(standardise(grouped)).run({"x": x.reshape(2, 3, 2, 5, 4)})["y"]
    expected = torch.nn.functional.group_norm(torch.from_numpy(x), 3).numpy()
    np.testing.assert_allclose(result.reshape(x.shape), expected, atol=1e-5)


def altered(index, **inputs):
    made = list(norm((2, 6, 1, 7), (1,)).main.body.operations)
    old = made[index]
    merged = {name: tuple(given) for name, given in old.inputs.items()}
    changed = call(old.type, old.name, ("fp32", *old.outputs[0].type.shape), **inputs)
    made[index] = type(old)(old.type, old.name, {**merged, **changed.inputs}, old.outputs)
    return program({"x": ("fp32", 2, 6, 1, 7)}, made, ["y"])


@pytest.mark.parametrize(
    "made",
    [
        altered(2, x="x"),  # the mean of squares, not the variance
        altered(6, x="x"),  # not centred
        altered(3, axes=ints(3)),
        altered(4, y=tensor(np.array([[[[0.1]]], [[[0.2]]]], np.float32))),
    ],
)
def test_what_only_resembles_one_is_left_alone(made):
    assert standardise(made) == made


def test_values_inside_that_others_read_stay():
    extra = (call("add", "z", ("fp32", 2, 6, 1, 7), x="y", y="d"),)
    made = norm((2, 6, 1, 7), (1,), extra=extra)
    rewritten = drop_unused(standardise(made))
    assert types(rewritten) == ["reduce_mean", "sub", "layer_norm", "add"]
    assert_same(made, rewritten, RNG.standard_normal((2, 6, 1, 7)).astype(np.float32), 1e-5)


def casts():
    one, half = ("fp32", 2, 3), ("fp16", 2, 3)
    kind = {"fp32": tensor("fp32"), "fp16": tensor("fp16"), "int32": tensor("int32")}
    return program(
        {"x": half},
        [
            call("cast", "a", one, x="x", dtype=kind["fp32"]),
            call("exp", "b", one, x="a"),
            call("cast", "c", half, x="b", dtype=kind["fp16"]),
            call("cast", "d", one, x="c", dtype=kind["fp32"]),
            call("cast", "i", ("int32", 2, 3), x="d", dtype=kind["int32"]),
            call("cast", "j", one, x="i", dtype=kind["fp32"]),
            call("add", "y", one, x="d", y="j"),
        ],
        ["c", "y"],
    )


def test_casts_between_floats_are_passed_over_and_others_are_not():
    rewritten = drop_unused(drop_casts(casts()))
    assert types(rewritten) == ["exp", "cast", "cast", "cast", "add"]
    x = RNG.standard_normal((2, 3)).astype(np.float16)
    before, after = (compile_portable(one).run({"x": x}) for one in (casts(), rewritten))
    for name in ("c", "y"):
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_transposed_cast_and_reshaped_weights_become_constants(dtype):
    weight = RNG.standard_normal((3, 4)).astype(dtype)
    kind = {np.float16: "fp16", np.float32: "fp32"}[dtype]
    made = program(
        {"x": ("fp32", 2, 3)},
        [
            const("w", weight),
            call("cast", "wide", ("fp32", 3, 4), x="w", dtype=tensor("fp32")),
            call("transpose", "t", ("fp32", 4, 3), x="wide", perm=ints(1, -2)),
            call("expand_dims", "u", (kind, 3, 1, 4), x="w", axes=ints(1)),
            call("squeeze", "s", (kind, 3, 4), x="u", axes=ints(1)),
            call("reshape", "r", (kind, 4, 3), x="s", shape=ints(4, -1)),
            call("linear", "p", ("fp32", 2, 4), x="x", weight="t"),
            call("linear", "q", ("fp32", 2, 4), x="x", weight="r"),
            call("add", "y", ("fp32", 2, 4), x="p", y="q"),
        ],
        ["y"],
    )
    rewritten = drop_unused(fold_constants(made))
    assert types(rewritten) == ["linear", "linear", "add"]
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    result = compile_reference(rewritten).run({"x": x})["y"]
    np.testing.assert_allclose(result, x @ weight + x @ weight.reshape(4, 3).T, rtol=2e-3)
    assert_same(made, rewritten, x)


def test_computed_values_and_integers_are_not_folded():
    made = program(
        {"x": ("fp32", 2, 3)},
        [
            const("n", np.array([3, 2], np.int32)),
            call("reshape", "shape", ("int32", 2), x="n", shape=ints(2)),
            call("transpose", "t", ("fp32", 3, 2), x="x", perm=ints(1, 0)),
            call("reshape", "y", ("fp32", 3, 2), x="t", shape="shape"),
        ],
        ["y"],
    )
    assert fold_constants(made) == made
