"""Layers whose inputs are int8, against numpy's arithmetic; what that costs, against runs of the program."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CONV, ENGINE, const, layer, normal, program
from sd_compress import (
    Activations,
    CalibrationError,
    Collecting,
    Joint,
    LayerInput,
    Linear,
    Palettize,
    PerBlock,
    PerChannel,
    Prune,
    Recipe,
    RecipeError,
    UnsupportedFormError,
    affine_of,
    collect_activations,
    collect_hessians,
    collect_statistics,
    compress,
    fit_activations,
    input_noises,
    scheme_from_json,
    scheme_to_json,
    signal_to_noise,
)
from sd_compress.activations import quantize_inputs
from sd_compress.clustering import Histogram
from sd_mil import Program

W8A8 = Linear(activations=Activations())
WEIGHTS = {
    "w1": normal(8, 3, 3, 3),
    "w2": normal(6, 8, 1, 1),
    "w3": normal(6, 8, 1, 1),
    "w4": normal(4, 6),
}


def network(weights=WEIGHTS):
    """A convolution, two that take the same of it, and a product with a matrix."""
    return program(
        (1, 3, 4, 4),
        *(const(name, value) for name, value in weights.items()),
        layer("conv", "a", (1, 8, 4, 4), {"x": "x", "weight": "w1"}, **CONV),
        layer("relu", "b", (1, 8, 4, 4), {"x": "a"}),
        layer("conv", "c", (1, 6, 4, 4), {"x": "b", "weight": "w2"}),
        layer("conv", "d", (1, 6, 4, 4), {"x": "b", "weight": "w3"}),
        layer("add", "e", (1, 6, 4, 4), {"x": "c", "y": "d"}),
        layer("matmul", "f", (1, 6, 4, 4), {"x": "e", "y": "e"}),
        layer("reshape", "g", (16, 6), {"x": "f"}, shape=(16, 6)),
        layer("linear", "y", (16, 4), {"x": "g", "weight": "w4"}),
        output="y",
    )


INPUTS = [{"x": normal(1, 3, 4, 4)} for _ in range(6)]
SETTINGS = Collecting(engine=ENGINE)


@pytest.fixture(scope="module")
def known():
    return collect_activations(network(), INPUTS, SETTINGS)


def kinds(made):
    return [one.type for one in made.main.body.operations if one.type != "const"]


def histogram(values):
    return Histogram.of(np.asarray(values, np.float16))


SCHEMES = st.builds(
    Activations,
    st.sampled_from(["symmetric", "asymmetric"]),
    st.sampled_from(["mse", "percentile", "minmax"]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-6e4, 6e4, width=16, allow_subnormal=False), min_size=1, max_size=60),
    SCHEMES,
)
def test_all_numbers_within_the_range_are_nearest_integers(values, scheme):
    values = np.asarray(values, np.float64)
    affine = affine_of(histogram(values), scheme)
    assert affine.scale > 0
    assert affine.scale == np.float16(affine.scale)
    assert -128 <= affine.zero_point <= 127
    assert affine.zero_point == 0 or scheme.mode == "asymmetric"
    assert affine.applied(np.zeros(1)) == 0
    levels = (np.arange(-128, 128) - affine.zero_point) * affine.scale
    distances = np.abs(values[:, None] - levels)
    got = np.abs(affine.applied(values) - values)
    assert np.allclose(got, distances.min(1), rtol=1e-6, atol=1e-9 + 1e-4 * affine.scale)
    if scheme.range == "minmax" and values.any():  # the scale is rounded to fp16, and small ones to nothing
        assert got.max() <= affine.scale * 0.75 + np.abs(values).max() * 2e-3 + 0.02


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(1, 6), st.sampled_from(["symmetric", "asymmetric"]))
def test_the_least_error_is_no_more_than_that_of_other_ranges(seed, tail, mode):
    values = np.random.default_rng(seed).standard_t(tail + 1, 500).astype(np.float16)
    errors = {
        name: np.square(affine_of(histogram(values), Activations(mode, name)).applied(values) - values).sum()
        for name in ("mse", "percentile", "minmax")
    }
    assert errors["mse"] <= min(errors.values()) * 1.02


def test_a_few_outliers_are_clipped_by_the_least_error_and_by_percentiles():
    values = np.concatenate([np.linspace(-1, 1, 10**6), [60.0]])
    steps = {
        name: affine_of(histogram(values), Activations(range=name)).scale for name in ("mse", "percentile")
    }
    assert steps["percentile"] < 1.01 / 127
    assert steps["mse"] < 20 / 127
    assert affine_of(histogram(values), Activations(range="minmax")).scale == np.float16(60 / 127)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("how", ["minmax", "percentile", "mse"])
def test_numbers_on_one_side_of_zero_have_a_range_that_begins_there(how, mode, sign):
    values = sign * np.linspace(5, 6, 1000)
    affine = affine_of(histogram(values), Activations(mode, how))
    used = 127 if mode == "symmetric" else 255
    assert np.isclose(affine.scale, 6 / used, rtol=0.02)
    assert np.abs(affine.applied(values) - values).max() < 0.03 + affine.scale / 2


def test_a_constant_zero_has_the_scale_of_one():
    assert affine_of(histogram(np.zeros(4)), Activations("asymmetric")).scale == 1


def test_histograms_count_every_number_of_every_run(known):
    values = np.concatenate([one["x"].reshape(-1) for one in INPUTS]).astype(np.float16)
    found, counts = np.unique(values.astype(np.float64), return_counts=True)
    (x,) = known["w1"]
    assert x.value == "x"
    assert np.array_equal(x.histogram.values, found)
    assert np.array_equal(x.histogram.counts, counts)
    assert [one.value for one in known["w2"]] == ["b"]


def test_hessians_come_from_the_same_runs(known, tmp_path):
    settings, done = Collecting(values=1, engine=ENGINE), []
    both = collect_statistics(
        network(), INPUTS, settings, folder=tmp_path, progress=lambda *at: done.append(at)
    )
    alone = collect_hessians(network(), INPUTS, SETTINGS)
    assert done[-1] == (18, 18)  # of six runs for each of three values
    for name in WEIGHTS:
        assert np.array_equal(both.hessians[name].blocks[0], alone[name].blocks[0])
        assert np.array_equal(both.inputs[name][0].rows, known[name][0].rows)
    again = []
    kept = collect_activations(
        network(), INPUTS, settings, folder=tmp_path, progress=lambda *at: again.append(at)
    )
    assert again == []
    assert np.array_equal(kept["w2"][0].histogram.counts, known["w2"][0].histogram.counts)
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-30])
    collect_activations(network(), INPUTS, settings, folder=tmp_path, progress=lambda *at: again.append(at))
    assert again


@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
def test_layers_compute_with_the_integers_that_numpy_finds(known, mode):
    scheme = Activations(mode, "minmax")
    made = compress(network(), Recipe({"w1": Linear(activations=scheme)}), inputs=known).program
    assert kinds(made)[:4] == ["constexpr_affine_dequantize", "quantize", "dequantize", "conv"]
    x = INPUTS[0]["x"]
    values = np.concatenate([one["x"].astype(np.float16).reshape(-1) for one in INPUTS]).astype(np.float64)
    low, high = values.min(), values.max()
    if mode == "symmetric":
        scale, zero = np.float32(max(-low, high) / 127), 0
    else:
        scale = np.float32((high - low) / 255)
        zero = int(np.rint(-128 - low / scale))
    integers = np.clip(np.rint(x / scale) + zero, -128, 127) - zero
    weights = np.abs(WEIGHTS["w1"]).max((1, 2, 3), keepdims=True) / 127
    rounded = np.rint(WEIGHTS["w1"] / weights)
    padded = np.pad(integers, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    sums = np.einsum("nchwij,ocij->nohw", windows, rounded)
    expected = sums * scale * weights.reshape(1, -1, 1, 1)
    asked = replace(made.main.body, outputs=("a",))
    shown = Program({"main": replace(made.main, body=asked)})
    assert np.allclose(ENGINE.compile(shown).run({"x": x})["a"], expected, rtol=1e-4, atol=1e-5)


def test_the_portable_engine_computes_the_same_in_integers(known):
    pytest.importorskip("openvino")
    from sd_mil.engines import OpenVINO
    from sd_mil.rewriting import compute_in_integers

    made = compress(network(), Recipe(dict.fromkeys(WEIGHTS, W8A8)), inputs=known).program
    in_integers = compute_in_integers(made)
    assert "constexpr_affine_dequantize" not in kinds(in_integers)
    pairs = [one for one in in_integers.main.body.operations if "output_dtype" in one.inputs]
    assert [one.type for one in pairs].count("dequantize") == 3
    expected, got = (one.compile(made).run(INPUTS[0])["y"] for one in (ENGINE, OpenVINO()))
    assert np.allclose(got, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_layers_of_one_value_share_a_pair_unless_their_integers_differ(known):
    made = compress(network(), Recipe(dict.fromkeys(WEIGHTS, W8A8)), inputs=known)
    assert kinds(made.program).count("quantize") == kinds(made.program).count("dequantize") == 3
    other = Linear(activations=Activations("asymmetric"))
    made = compress(network(), Recipe({**dict.fromkeys(WEIGHTS, W8A8), "w3": other}), inputs=known)
    assert kinds(made.program).count("quantize") == 4
    names = [out.name for one in made.program.main.body.operations for out in one.outputs]
    assert len(set(names)) == len(names)


def test_what_is_kept_keeps_its_activations(known):
    weights = {**WEIGHTS, "w2": np.full((6, 8, 1, 1), np.inf, np.float32)}
    made = compress(network(weights), Recipe({"w2": W8A8}), inputs=known)
    assert made.kept
    assert "quantize" not in kinds(made.program)


def test_noise_is_what_integers_do_to_the_output_of_a_layer():
    single = program(
        (12, 5),
        const("w", normal(7, 5)),
        layer("linear", "y", (12, 7), {"x": "x", "weight": "w"}),
        output="y",
    )
    inputs = [{"x": normal(12, 5)} for _ in range(3)]
    recipe = Recipe({"w": W8A8})
    found = collect_activations(single, inputs, SETTINGS)
    (noise,) = input_noises(single, recipe, found)
    main = quantize_inputs(single.main, recipe.schemes, found)
    measured = signal_to_noise(single, Program({"main": main}), inputs, ENGINE)
    assert 30 < noise.snr == pytest.approx(measured, abs=0.01)


def test_layers_that_cost_too_much_stay(known):
    recipe = Recipe(dict.fromkeys(WEIGHTS, W8A8))
    found = {one.weight: one.snr for one in input_noises(network(), recipe, known)}
    assert found.keys() == WEIGHTS.keys()
    limit = sorted(found.values())[1]
    fitted = fit_activations(network(), recipe, known, min_snr=limit, without=["w4", "nothing*"])
    worst = min(found, key=lambda name: found[name])
    expected = {worst: f"{found[worst]:.1f} dB at the layer's output", "w4": "as asked"}
    assert dict(fitted.left) == expected
    for name, scheme in fitted.recipe.schemes.items():
        assert scheme == (Linear() if name in expected else W8A8)
    assert {one.weight for one in fitted.noises} == WEIGHTS.keys() - expected.keys()


def test_products_that_have_no_integer_form_stay_or_are_refused():
    made = program(
        (4, 5),
        const("w", normal(5, 7)),
        layer("matmul", "y", (4, 7), {"x": "x", "y": "w"}),
        output="y",
    )
    found = collect_activations(made, [{"x": normal(4, 5)}], SETTINGS)
    fitted = fit_activations(made, Recipe({"w": W8A8}), found)
    assert fitted.left == {"w": "of matmul, not conv or linear"}
    assert kinds(compress(made, fitted.recipe, inputs=found).program) == [
        "constexpr_affine_dequantize",
        "matmul",
    ]
    with pytest.raises(CalibrationError, match=r"w: expected activations of conv or linear.* got .*matmul"):
        compress(made, Recipe({"w": W8A8}), inputs=found)


def test_activations_that_were_not_calibrated_are_refused(known):
    with pytest.raises(
        CalibrationError, match=r"w1: expected calibrated inputs of a.* leave activations out"
    ):
        compress(network(), Recipe({"w1": W8A8}))
    other = {"w1": [LayerInput("elsewhere", known["w1"][0].histogram, known["w1"][0].rows)]}
    with pytest.raises(CalibrationError, match="w1: expected calibrated inputs"):
        compress(network(), Recipe({"w1": W8A8}), inputs=other)


def test_older_systems_lack_the_form(known):
    old = network()
    old = Program({"main": replace(old.main, opset="CoreML6")})
    with pytest.raises(UnsupportedFormError, match=r"and activations; ask for the target iOS17"):
        compress(old, Recipe({"w1": W8A8}), inputs=known)


def test_newer_systems_have_weights_in_blocks(known):
    new = network()
    new = Program({"main": replace(new.main, opset="CoreML8")})
    made = compress(new, Recipe({"w1": W8A8}), inputs=known).program
    assert kinds(made)[:4] == ["constexpr_blockwise_shift_scale", "quantize", "dequantize", "conv"]


def test_values_that_are_not_finite_are_named():
    x = INPUTS[0]["x"].copy()
    x[0, 0, 0, 0] = np.inf
    with pytest.raises(CalibrationError, match="'x'"):
        collect_activations(network(), [{"x": x}], Collecting(rows=1, engine=ENGINE))


@settings(max_examples=20, deadline=None)
@given(SCHEMES)
def test_recipes_keep_activations(scheme):
    linear = Linear(activations=scheme)
    assert scheme_from_json(scheme_to_json(linear)) == linear
    assert "activations" in scheme_to_json(linear)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"activations": "yes"}, r"\.activations: expected an object, got 'yes'"),
        ({"activations": {"mode": "odd"}}, r"\.activations\.mode: expected one of symmetric, asymmetric"),
        ({"activations": {"range": 3}}, r"\.activations\.range: expected one of mse, percentile, minmax"),
        ({"activations": {"bits": 3}}, r"\.activations: expected fields of mode, range, got \['bits'\]"),
        ({"activations": {}, "dtype": "uint8"}, r"\.activations: expected symmetric int8 weights"),
        ({"activations": {}, "mode": "asymmetric"}, r"\.activations: expected symmetric int8 weights"),
        ({"activations": {}, "granularity": "per_block", "block_size": 4}, "expected symmetric int8 weights"),
        ({"activations": {}, "granularity": "per_channel", "axis": 1}, "expected symmetric int8 weights"),
    ],
)
def test_what_no_form_has_is_refused(given, said):
    with pytest.raises(RecipeError, match=said):
        scheme_from_json({"method": "linear", **given})


def test_sparse_weights_and_tables_have_no_integer_products():
    with pytest.raises(RecipeError, match="no activations of sparse weights"):
        Joint(Prune(0.5), W8A8)
    with pytest.raises(RecipeError, match="expected fields of"):
        scheme_from_json({"method": "palettize", "nbits": 4, "activations": {}})
    assert Palettize(4) != W8A8
    for granularity in (PerBlock(4), PerChannel(1)):
        with pytest.raises(RecipeError):
            Linear(granularity=granularity, activations=Activations())


def renamed(body, names):
    """The body with other names of values."""

    def variable(one):
        return replace(one, name=names.get(one.name, one.name))

    def taken(one):
        return replace(one, name=names.get(one.name, one.name)) if hasattr(one, "name") else one

    operations = [
        replace(
            one,
            outputs=tuple(map(variable, one.outputs)),
            inputs={key: tuple(map(taken, given)) for key, given in one.inputs.items()},
        )
        for one in body.operations
    ]
    return replace(body, operations=tuple(operations))


def with_second(names):
    """The network twice, the second time with other names of values."""
    made = network()
    second = replace(made.main, name="second", body=renamed(made.main.body, names))
    return replace(made, functions={**made.functions, "second": second}, default_function="main")


def test_all_functions_that_calibration_knows_the_values_of_compute_in_integers(known):
    schemes = dict.fromkeys(("w1", "w2"), W8A8)
    made = compress(with_second({}), Recipe(schemes), inputs=known)
    assert [(one.name, one.function) for one in made.weights] == [
        (name, function) for function in ("main", "second") for name in schemes
    ]
    expected = compress(network(), Recipe(schemes), inputs=known).program
    for function in ("main", "second"):
        alone = Program({function: made.program.functions[function]}, function)
        found = [ENGINE.compile(one).run(INPUTS[0])["y"] for one in (alone, expected)]
        assert np.array_equal(*found)
        assert kinds(alone).count("quantize") == 2


def test_a_function_with_values_that_were_not_calibrated_is_refused_by_name(known):
    with pytest.raises(CalibrationError, match=r"w2: expected calibrated inputs of c"):
        compress(with_second({"b": "b_of_second"}), Recipe({"w2": W8A8}), inputs=known)


def test_palettes_stand_beside_layers_in_integers(known):
    recipe = Recipe({"w1": Palettize(4), "w2": W8A8})
    made = compress(network(), recipe, inputs=known).program
    found = kinds(made)
    assert [found.count(one) for one in ("quantize", "constexpr_lut_to_dense")] == [1, 1]
    assert signal_to_noise(network(), made, INPUTS, ENGINE) > 12
