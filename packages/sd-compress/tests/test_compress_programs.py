"""Program to program: every function, what is shared, what is kept, and what a target lacks."""

from contextlib import ExitStack

import numpy as np
import pytest
from compressing import const, decoded, flag, function, kinds, program, use, written
from sd_compress import (
    CompressionError,
    Joint,
    Linear,
    Palette,
    Palettize,
    PerBlock,
    PerGroupedChannel,
    PerTensor,
    Prune,
    Recipe,
    RecipeError,
    Selection,
    UnsupportedFormError,
    compress,
    optimal_palette,
    palettize,
    storage_of,
    uniform_recipe,
    weights_of,
    with_target,
)
from sd_compress._blas import one_thread_each
from sd_mil import Block, Operation, Program, Reference, TensorType, Variable
from threadpoolctl import threadpool_info, threadpool_limits

RNG = np.random.default_rng(5)


def weight(*shape, dtype=np.float16):
    return (RNG.standard_normal(shape) / 8).astype(dtype)


def test_weights_are_listed_with_who_takes_them():
    made = program(
        {
            "conv": weight(8, 4, 3, 3),
            "table": (weight(10, 4), use("gather", "table", "x")),
            "unused": (weight(2, 2), Operation("const", "c", {}, (), {})),
        }
    )
    assert [(one.name, one.kind, one.parameter) for one in weights_of(made)] == [
        ("conv", "conv", "weight"),
        ("table", "gather", "x"),
    ]


LAYOUTS = [
    ("conv", "weight", {}, (6, 4, 3, 2), 0, 1),
    ("linear", "weight", {}, (6, 4), 0, 1),
    ("matmul", "y", {}, (4, 6), 1, 0),
    ("matmul", "y", {"transpose_y": True}, (6, 4), 0, 1),
    ("matmul", "x", {}, (6, 4), 0, 1),
    ("matmul", "x", {"transpose_x": True}, (4, 6), 1, 0),
    ("matmul", "y", {}, (2, 4, 6), 2, 1),
    ("conv_transpose", "weight", {}, (4, 6, 3, 3), 1, 0),
    ("gather", "x", {}, (9, 4), 0, 1),
]


@pytest.mark.parametrize(("kind", "parameter", "flags", "shape", "output", "inputs"), LAYOUTS)
def test_the_matrix_of_a_layer(kind, parameter, flags, shape, output, inputs):
    values = weight(*shape)
    (one,) = weights_of(program({"w": (values, use(kind, "w", parameter, **flags))}))
    assert (one.output_axis, one.input_axis) == (output, inputs)
    matrix = one.matrix()
    assert matrix.ndim == 2
    np.testing.assert_array_equal(one.tensor(matrix), values)
    column = np.take(values, 1, axis=inputs)  # one input channel
    assert np.isin(column, matrix[:, matrix.shape[1] // shape[inputs] :]).all()
    if kind == "matmul" and len(shape) == 2:
        x = weight(3, 4)
        left = x.astype(np.float64) @ matrix.T.astype(np.float64)
        plain = values.astype(np.float64)
        factor = plain.T if (parameter == "y") == bool(flags) else plain
        np.testing.assert_allclose(left, x.astype(np.float64) @ factor)


def test_all_functions_and_what_they_share_once(tmp_path):
    shared, own = weight(64, 64), weight(64, 32)
    two = Program(
        {"main": function("main", {"s": shared}), "other": function("other", {"s": shared, "o": own})}
    )
    before = storage_of(two)
    made = compress(two, uniform_recipe(two, Palettize(4), Selection(fewest_elements=0)))
    assert [(one.function, one.name) for one in made.weights] == [
        ("main", "s"),
        ("other", "s"),
        ("other", "o"),
    ]
    read = written(tmp_path / "two.mlpackage", made.program)
    assert kinds(read, "main") == ["constexpr_lut_to_dense"]
    assert kinds(read, "other") == ["constexpr_lut_to_dense"] * 2
    np.testing.assert_array_equal(decoded(read, "main")["s"], decoded(read, "other")["s"])
    assert before.total.stored_bytes == shared.nbytes + own.nbytes
    assert storage_of(read).total.stored_bytes == (shared.size + own.size) // 2 + 2 * 32


def test_two_names_of_one_weight_stay_one_blob(tmp_path):
    values = weight(64, 64)
    made = program({"a": values, "b": values})
    joint = Joint(Prune(0.5), Palettize(4))
    done = compress(with_target(made, 18), uniform_recipe(made, joint))
    read = written(tmp_path / "m.mlpackage", done.program, opset=18)
    np.testing.assert_array_equal(decoded(read)["a"], decoded(read)["b"])
    one = compress(with_target(program({"a": values}), 18), Recipe({"a": joint}))
    assert storage_of(read).total.stored_bytes == storage_of(one.program).total.stored_bytes


def test_weights_in_nested_blocks(tmp_path):
    values = weight(48, 64)
    inside = (const("w", values), use("linear", "w"))
    block = Block((), inside, ("w_used",))
    result = Variable("y", TensorType("fp16", (1,)))
    branch = Operation("cond", "y", {"pred": (flag(True),)}, (result,), {}, (block, Block((), (), ())))
    main = function("main", {})
    nested = Program({"main": type(main)("main", main.opset, Block((), (branch,), ("y",)))})
    made = compress(nested, uniform_recipe(nested, Palettize(6)))
    assert [one.kept for one in made.weights] == [""]
    assert kinds(made.program) == ["constexpr_lut_to_dense"]


KEPT = {
    "infinite": (np.where(np.eye(64) > 0, np.inf, 1).astype(np.float16), Palettize(6), "not all elements"),
    "not a number": (np.full((64, 64), np.nan, np.float32), Linear(), "not all elements are finite"),
    "groups": (weight(120, 64), Palettize(4, PerGroupedChannel(16), per_channel_scale=True), "120 channels"),
    "blocks": (weight(64, 100), Linear("int4", "symmetric", PerBlock(32)), "100 inputs are not divisible"),
    "vectors": (weight(63, 64), Palettize(4, vector_size=2), "not divisible by vectors of 2"),
    "n of m": (weight(64, 63), Prune(n_m=(2, 4)), "63 inputs are not divisible by 4"),
    "tiny": (weight(4, 4), Palettize(8), "it would take"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_does_not_fit_is_kept_to_the_bit_and_reported(name):
    """As coremltools issue 2777: a weight that is skipped must not have been divided before."""
    values, scheme, reason = KEPT[name]
    before = values.copy()
    made = with_target(program({"w": values, "fits": weight(64, 64)}), 18)
    done = compress(made, Recipe({"w": scheme, "fits": Palettize(4)}))
    assert [(one.name, reason in one.kept) for one in done.kept] == [("w", True)]
    assert done.weights[0].bytes_after == done.weights[0].bytes_before == values.nbytes
    np.testing.assert_array_equal(decoded(done.program)["w"], before)
    np.testing.assert_array_equal(values, before)
    assert kinds(done.program) == ["constexpr_lut_to_dense"]


EXACT = [Palettize(1), Palettize(6), Linear(), Linear("uint8", "asymmetric"), Linear("int4"), Prune(0.5)]


@pytest.mark.parametrize("value", [0.0, -0.375, 6e-8, 65504.0])
@pytest.mark.parametrize(
    "scheme", [*EXACT, Palettize(2, per_channel_scale=True), Palettize(2, vector_size=2)]
)
def test_a_constant_weight_stays_what_it_is(scheme, value):
    values = np.full((32, 64), value, np.float16)
    made = compress(with_target(program({"w": values}), 18), Recipe({"w": scheme}))
    got = decoded(made.program)["w"].astype(np.float64)
    assert not made.kept
    if isinstance(scheme, Prune):
        assert np.isin(got, [0, values[0, 0]]).all()
        return
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, values.astype(np.float64), rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_no_more_values_than_entries_is_without_loss(dtype):
    values = RNG.choice(np.array([-1.5, 0, 0.25, 3], dtype), (64, 64))
    made = compress(program({"w": values}), Recipe({"w": Palettize(2)}))
    got = decoded(made.program)["w"]
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, values)


def test_groups_have_the_best_table_each():
    values = weight(64, 48) * np.repeat([1, 4], 32)[:, None].astype(np.float16)
    (one,) = weights_of(program({"w": values}))
    grouped = optimal_palette(one, Palettize(4, PerGroupedChannel(32)))
    for group, part in enumerate(np.split(values, 2)):
        (alone,) = weights_of(program({"w": part}))
        np.testing.assert_array_equal(grouped.tables[group], optimal_palette(alone, Palettize(4)).tables[0])
    assert ((grouped.decode() - values) ** 2).sum() < (
        (optimal_palette(one, Palettize(4)).decode() - values) ** 2
    ).sum()


def test_of_what_is_pruned_only_the_rest_has_a_table():
    values = weight(64, 64)
    made = compress(with_target(program({"w": values}), 18), Recipe({"w": Joint(Prune(0.75), Palettize(4))}))
    got = decoded(made.program)["w"]
    largest = np.sort(np.abs(values).reshape(-1))[-values.size // 4 :]
    assert (got != 0).sum() == values.size // 4
    assert np.abs(values[got != 0]).min() == largest[0]
    assert 0 not in np.unique(got[got != 0])
    assert len(np.unique(got[got != 0])) == 16


def test_two_of_four_inputs_stay():
    values = weight(16, 32, 3, 3)
    made = compress(program({"w": values}), Recipe({"w": Prune(n_m=(2, 4))}))
    got = np.moveaxis(decoded(made.program)["w"], 1, -1).reshape(-1, 4)
    expected = np.moveaxis(values, 1, -1).reshape(-1, 4)
    assert ((got != 0).sum(axis=1) == 2).all()
    for row, before in zip(got, expected, strict=True):
        assert np.abs(before[row == 0]).max() <= np.abs(before[row != 0]).min()


def test_palettes_of_somebody_else():
    """The hook: one table for all, as calibration might find it."""
    values = weight(64, 64)

    def signs(one, scheme):
        read = one.read()
        table = np.array([[-0.1, 0.1]])
        assert scheme == Palettize(1)
        return Palette(table, (read > 0).astype(np.uint8))

    got = decoded(palettize(program({"w": values}), Recipe({"w": Palettize(1)}), assign=signs))["w"]
    np.testing.assert_array_equal(got, np.where(values > 0, 0.1, -0.1).astype(np.float16))


def test_the_hook_is_for_palettes():
    made = with_target(program({"w": weight(64, 64)}), 18)
    with pytest.raises(RecipeError, match=r"expected palettization only, got other methods for w"):
        palettize(made, Recipe({"w": Linear()}))
    with pytest.raises(CompressionError, match="expected a palette without pruning"):
        compress(made, Recipe({"w": Joint(Prune(0.5), Palettize(4))}), assign=lambda *_: None)


LACKING = [
    (15, Palettize(6), "iOS16"),
    (16, Palettize(3), "iOS18"),
    (17, Palettize(4, PerGroupedChannel(16)), "iOS18"),
    (16, Palettize(4, per_channel_scale=True), "iOS18"),
    (16, Palettize(4, vector_size=2), "iOS18"),
    (16, Linear("int4"), "iOS18"),
    (16, Linear("int8", "symmetric", PerBlock(32)), "iOS18"),
    (16, Joint(Prune(0.5), Linear()), "iOS18"),
    (15, Prune(0.5), "iOS16"),
]


@pytest.mark.parametrize(("opset", "scheme", "first"), LACKING)
def test_a_form_that_the_target_lacks_names_the_target_that_has_it(opset, scheme, first):
    made = program({"w": weight(64, 64)}, opset=opset)
    with pytest.raises(UnsupportedFormError, match=rf"w: expected a form .* that iOS{opset} has.*{first}"):
        compress(made, Recipe({"w": scheme}))
    raised = with_target(made, int(first.removeprefix("iOS")))
    assert not compress(raised, Recipe({"w": scheme})).kept


def test_a_program_is_not_raised_over_operations_that_change():
    palettized = compress(program({"w": weight(64, 64)}), Recipe({"w": Palettize(4)})).program
    with pytest.raises(UnsupportedFormError, match="w: expected operations that iOS18 has as they are"):
        with_target(palettized, 18)
    assert with_target(palettized, 16) == palettized


def test_names_that_are_taken_are_left_alone():
    made = with_target(program({"w": weight(64, 64), "w_palettized": weight(8, 8)}), 18)
    done = compress(made, Recipe({"w": Palettize(2, per_channel_scale=True)})).program
    names = [variable.name for one in done.operations() for variable in one.outputs]
    assert len(names) == len(set(names))
    (last,) = (one for one in done.operations() if one.type == "constexpr_blockwise_shift_scale")
    assert last.inputs["data"] == (Reference("w_palettized_"),)


def test_progress_ends_with_all_of_it():
    made = program({f"w{index}": weight(64, 64) for index in range(5)})
    told = []
    compress(made, uniform_recipe(made, Palettize(2)), progress=lambda *event: told.append(event))
    assert [done for done, _, _ in told] == [4096 * (index + 1) for index in range(5)]
    assert {total for _, total, _ in told} == {5 * 4096}


def test_per_tensor_scales_are_one():
    made = compress(program({"w": weight(64, 64)}), Recipe({"w": Linear("int8", "symmetric", PerTensor())}))
    (operation,) = (one for one in made.program.operations() if one.type.startswith("constexpr_"))
    assert operation.attributes["scale"].type == TensorType("fp16", ())


def blas_threads():
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


def test_products_take_a_thread_for_each_of_ours():
    """BLAS has as many threads as there were before, however blocks overlap."""
    made = program({"a": weight(64, 64), "b": weight(64, 64)})
    recipe = Recipe({"a": Palettize(2), "b": Palettize(2)})
    compress(made, recipe)  # libraries that have a BLAS of their own are loaded now
    before, seen = blas_threads(), []

    def assign(given, scheme):
        seen.append(blas_threads())
        return optimal_palette(given, scheme)

    with threadpool_limits(3, user_api="blas"):
        threads = blas_threads()
        compress(made, recipe, assign=assign, workers=1)
        assert seen == [threads] * 2
        compress(made, recipe, assign=assign, workers=2)
        assert seen[2:] == [{1}] * 2
        with ExitStack() as first, ExitStack() as second:
            first.enter_context(one_thread_each())
            second.enter_context(one_thread_each())
            first.close()
            assert blas_threads() == {1}
        assert blas_threads() == threads
    assert blas_threads() == before
