"""Error-compensated rounding and refitted tables, against slow ways to the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_compress import Palette, Palettize, UnsupportedFormError, Weight
from sd_compress.calibration import Calibrated, Hessian, improved
from sd_compress.calibration.hessians import Accumulator, block_sizes, largest_block, total_bytes
from sd_compress.calibration.refitting import refitted
from sd_compress.calibration.rounding import compensated, feedback
from sd_compress.calibration.tables import tables_of
from sd_mil import Constant, TensorType


def weight(values, kind="linear"):
    values = np.ascontiguousarray(values, np.float32)
    constant = Constant(TensorType("fp32", values.shape), values)
    return Weight("w", "main", kind, "op", "weight", constant)


def hessian(inputs, rng, *, rows=64, sizes=None):
    sums = Accumulator(sizes or [inputs])
    sums.add((rng.standard_normal((rows, inputs)) @ rng.standard_normal((inputs, inputs))).astype(np.float32))
    return sums.hessian()


def lloyd(values, entries):
    """The k-means palette of all numbers, of one table: sorted, converged from quantiles."""
    table = np.quantile(values, np.linspace(0, 1, entries))
    for _ in range(100):
        nearest = np.abs(values.reshape(-1, 1) - table).argmin(1)
        table = np.array(
            [
                values.ravel()[nearest == i].mean() if (nearest == i).any() else table[i]
                for i in range(entries)
            ]
        )
    nearest = np.abs(values.reshape(-1, 1) - table).argmin(1)
    return table, nearest.reshape(values.shape)


def k_means(one, scheme):
    table, indices = lloyd(one.read().astype(np.float64), 2**scheme.nbits)
    return Palette(table[None].astype(np.float32), indices.astype(np.uint8))


def dense_gptq(matrix, table, full, damping):
    """Algorithm 1 of arXiv 2210.17323 with a block of one, by the inverse of the whole Hessian."""
    weights, full = matrix.astype(np.float64), full.astype(np.float64)
    full = full + damping * np.trace(full) / len(full) * np.eye(len(full))
    order = np.argsort(-np.diagonal(full), kind="stable")
    inverse = np.linalg.cholesky(np.linalg.inv(full[np.ix_(order, order)])).T
    weights, indices = weights[:, order].copy(), np.empty(matrix.shape, int)
    for j in range(len(full)):
        nearest = np.abs(weights[:, j, None] - table).argmin(1)
        error = (weights[:, j] - table[nearest]) / inverse[j, j]
        weights[:, j:] -= np.outer(error, inverse[j, j:])
        indices[:, order[j]] = nearest
    return indices


@pytest.mark.parametrize("inputs", [5, 150])
def test_rounding_is_that_of_the_paper(inputs):
    rng = np.random.default_rng(inputs)
    matrix, table = rng.standard_normal((7, inputs)).astype(np.float32), np.float32([-1.5, -0.3, 0.2, 1.7])
    full = hessian(inputs, rng, rows=2 * inputs)
    tables = tables_of(weight(matrix), Palette(table[None], np.zeros(matrix.shape, np.uint8)))
    expected = dense_gptq(matrix, table, full.blocks[0], 0.05)
    assert (compensated(matrix, tables, full, 0.05) == expected).mean() > 0.99  # float32 ties apart
    assert (expected != np.abs(matrix[..., None] - table).argmin(-1)).any()


def test_blocks_are_rounded_apart():
    rng = np.random.default_rng(3)
    matrix, table = rng.standard_normal((6, 12)).astype(np.float32), np.float32([-1, 0, 1, 2])
    both = hessian(12, rng, sizes=[8, 4])
    tables = tables_of(weight(matrix), Palette(table[None], np.zeros(matrix.shape, np.uint8)))
    parts = [dense_gptq(matrix[:, part], table, block, 0.01) for part, block in both.parts()]
    assert np.array_equal(compensated(matrix, tables, both), np.concatenate(parts, axis=1))


def test_a_hessian_of_zeros_rounds_to_the_nearest():
    factor = feedback(np.zeros((3, 3), np.float32))
    assert np.array_equal(factor.upper, np.eye(3))
    matrix = np.float32([[0.1, 0.9, 0.4]])
    tables = tables_of(weight(matrix), Palette(np.float32([[0, 1]]), np.zeros(matrix.shape, np.uint8)))
    dead = Hessian((np.zeros((3, 3), np.float32),), 1)
    assert compensated(matrix, tables, dead).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("flaw", ["one input twice", "dead input", "one row", "barely negative"])
def test_singular_hessians_are_damped(flaw):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((40, 6)).astype(np.float32)
    if flaw == "one input twice":
        x[:, 1] = x[:, 0]
    elif flaw == "dead input":
        x[:, 2] = 0
    elif flaw in ("one row", "barely negative"):
        x = x[:1]
    block = x.T @ x / len(x)
    if flaw == "barely negative":  # what sums in float32 can come to: less than the damping makes up for
        block = block - np.float32(0.05 * np.trace(block) / 6) * np.eye(6, dtype=np.float32)
    matrix = weight(rng.standard_normal((8, 6)))
    found = improved(matrix, k_means(matrix, Palettize(2)), Hessian((block,), len(x)))
    assert np.isfinite(found.decode()).all()
    assert found.indices.max() < 4


def test_an_identity_leaves_k_means_as_it_is():
    rng = np.random.default_rng(7)
    one = weight(rng.standard_normal((16, 24)))
    start = k_means(one, Palettize(3))
    same = Calibrated({"w": Hessian.identity(24)}, k_means)(one, Palettize(3))
    assert np.array_equal(same.decode(), start.decode())
    assert np.array_equal(Calibrated({}, k_means)(one, Palettize(3)).decode(), start.decode())


def refit_by_normal_equations(matrix, indices, entries, full):
    """One column of indicators for each entry: lstsq on the Cholesky root of the Hessian."""
    root = np.linalg.cholesky(full.astype(np.float64) + 1e-9 * np.eye(len(full)))
    columns = [((indices == entry) @ root).ravel() for entry in range(entries)]
    return np.linalg.lstsq(np.stack(columns, 1), (matrix @ root).ravel(), rcond=None)[0]


def test_refitting_solves_the_least_squares_problem():
    rng = np.random.default_rng(11)
    matrix = rng.standard_normal((9, 10)).astype(np.float32)
    full = hessian(10, rng)
    indices = rng.integers(0, 4, matrix.shape)
    tables = tables_of(weight(matrix), Palette(np.float32([[-1, 0, 1, 2]]), indices.astype(np.uint8)))
    expected = refit_by_normal_equations(matrix, indices, 4, full.blocks[0])
    assert np.allclose(refitted(matrix, tables, indices, full).ravel(), expected, atol=2e-3)


FORMS = st.sampled_from(["tensor", "output groups", "input groups", "scales", "vectors", "conv", "matmul"])


def start_of(form, rng):
    """A weight and some palette of it, in each form that there is."""
    kind = {"conv": "conv", "matmul": "matmul"}.get(form, "linear")
    values = rng.standard_normal((8, 6, 3, 2) if form == "conv" else (8, 12)).astype(np.float32)
    one = Weight(
        "w",
        "main",
        kind,
        "op",
        "y" if kind == "matmul" else "weight",
        Constant(TensorType("fp32", values.shape), values),
    )
    groups = {"output groups": 4, "input groups": 3, "conv": 2}.get(form, 1)
    axis = 1 if form == "input groups" else 0
    vector = 2 if form == "vectors" else None
    tables = rng.standard_normal((groups, 4, 2) if vector else (groups, 4)).astype(np.float32)
    shape = (4, 12) if vector else values.shape
    return one, Palette(
        tables,
        rng.integers(0, 4, shape).astype(np.uint8),
        axis=axis,
        vector_axis=0 if vector else None,
        scales=rng.uniform(0.5, 2, 8).astype(np.float32) if form == "scales" else None,
    )


@given(FORMS, st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_tables_are_what_the_palette_decodes_to(form, seed):
    rng = np.random.default_rng(seed)
    one, palette = start_of(form, rng)
    tables = tables_of(one, palette)
    indices = one.matrix(palette.indices) if form != "vectors" else palette.indices
    decoded = tables.decode(indices)
    assert np.allclose(decoded, one.matrix(palette.decode()))
    ordered, same = tables.in_order(indices)
    assert np.array_equal(ordered.decode(same), decoded)
    other = rng.standard_normal(decoded.shape).astype(np.float32)  # <decode(t), m> = <t, gather(m)>
    assert np.isclose(
        np.vdot(decoded, other), np.vdot(tables.entries, tables.gather(other, indices)), atol=1e-3
    )


@given(FORMS, st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_the_nearest_entry_is_found_in_every_form(form, seed):
    rng = np.random.default_rng(seed)
    one, palette = start_of(form, rng)
    tables = tables_of(one, palette)
    tables, _ = tables.in_order(np.zeros((tables.rows, 1), np.uint8))
    matrix = one.matrix()
    for column in range(0, matrix.shape[1], 5):
        values = 3 * matrix[:, column]
        nothing = np.zeros((len(values), 1), np.float32)
        _, errors = tables.round(
            values[:, None].copy(), nothing, np.eye(1, dtype=np.float32), np.array([column])
        )
        decoded = values - errors[:, 0]
        every = [tables.decode(np.full((tables.rows, matrix.shape[1]), k))[:, column] for k in range(4)]
        scales = tables.row_scales * tables.column_scales[column]
        distances = [np.square((values - each) / scales).reshape(tables.rows, -1).sum(1) for each in every]
        found = np.square((values - decoded) / scales).reshape(tables.rows, -1).sum(1)
        assert np.allclose(found, np.min(distances, axis=0), atol=1e-4)


@given(FORMS, st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_calibrated_palette_is_never_noisier(form, seed):
    rng = np.random.default_rng(seed)
    one, palette = start_of(form, rng)
    full = hessian(one.matrix().shape[1], rng)
    found = improved(one, palette, full)
    noise = [full.noise(one.matrix() - one.matrix(each.decode())) for each in (palette, found)]
    assert noise[1] <= noise[0]
    assert found.tables.shape == palette.tables.shape
    assert found.indices.shape == palette.indices.shape
    assert found.scales is palette.scales


def test_compensation_takes_much_of_the_noise_of_correlated_inputs():
    rng = np.random.default_rng(13)
    one = weight(rng.standard_normal((32, 64)))
    full = hessian(64, rng, rows=400)
    start = k_means(one, Palettize(2))
    found = improved(one, start, full)
    noise = [full.noise(one.matrix() - each.decode()) for each in (start, found)]
    assert noise[1] < 0.6 * noise[0]


def test_entries_are_kept_as_the_dtype_of_the_weight_holds_them():
    rng = np.random.default_rng(17)
    values = rng.standard_normal((8, 16)).astype(np.float16)
    one = Weight("w", "main", "linear", "op", "weight", Constant(TensorType("fp16", (8, 16)), values))
    found = improved(one, k_means(one, Palettize(2)), hessian(16, rng))
    assert np.array_equal(found.tables, found.tables.astype(np.float16).astype(np.float32))


def test_vectors_over_inputs_are_refused():
    palette = Palette(np.zeros((1, 4, 2), np.float32), np.zeros((8, 6), np.uint8), vector_axis=1)
    with pytest.raises(UnsupportedFormError, match=r"'w'.*axis 1"):
        improved(weight(np.zeros((8, 12))), palette, Hessian.identity(12))


@given(st.integers(1, 60), st.sampled_from([1, 3, 9]), st.integers(1, 600))
def test_blocks_hold_whole_channels_and_no_more_than_they_may(channels, taps, largest):
    sizes = block_sizes(channels * taps, taps, largest)
    assert sum(sizes) == channels * taps
    assert all(size % taps == 0 and size > 0 for size in sizes)
    assert max(sizes) <= max(largest, taps)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, 9])), min_size=1, max_size=6),
    st.integers(0, 10**6),
)
def test_the_bound_on_memory_is_kept(channels, memory):
    shapes = [(count * taps, taps) for count, taps in channels]
    largest = largest_block(shapes, memory)
    fits = total_bytes(shapes, largest) <= memory
    assert fits or largest == max(taps for _, taps in shapes)


def test_noise_is_the_trace():
    rng = np.random.default_rng(19)
    both = hessian(10, rng, sizes=[6, 4])
    whole = np.zeros((10, 10))
    for part, block in both.parts():
        whole[part, part] = block
    error = rng.standard_normal((3, 10)).astype(np.float32)
    assert np.isclose(both.noise(error), np.trace(error @ whole @ error.T), rtol=1e-5)
    x = rng.standard_normal((50, 10)).astype(np.float32)
    sums = Accumulator([10])
    for part in np.array_split(x, 7):
        sums.add(part)
    assert np.isclose(sums.hessian().noise(error), np.square(x @ error.T).sum(1).mean(), rtol=1e-4)
