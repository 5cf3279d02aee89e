"""Hessians that are collected while a program runs, against what errors of its weights do to its outputs."""

import itertools

import numpy as np
import pytest
from networks import CONV, ENGINE, const, layer, normal, program
from sd_compress import weights_of
from sd_compress.calibration import Collecting, collect_hessians, collect_statistics, inputs_of
from sd_compress.errors import CalibrationError
from sd_mil import Block, Function, Program

#: Input, weight, output, the axis of the output's channels, the parameters.
LAYERS = {
    "linear": ("linear", (2, 5, 6), (4, 6), (2, 5, 4), -1, {"x": "x", "weight": "w"}, {}),
    "matmul": ("matmul", (2, 5, 6), (6, 4), (2, 5, 4), -1, {"x": "x", "y": "w"}, {}),
    "matmul, transposed": (
        "matmul", (2, 6, 5), (4, 6), (2, 5, 4), -1, {"x": "x", "y": "w"},
        {"transpose_x": True, "transpose_y": True},
    ),
    "matmul from the left": ("matmul", (2, 6, 5), (4, 6), (2, 4, 5), 1, {"x": "w", "y": "x"}, {}),
    "conv": ("conv", (2, 3, 6, 5), (4, 3, 3, 3), (2, 4, 6, 5), 1, {"x": "x", "weight": "w"}, CONV),
    "conv 1x1": ("conv", (2, 6, 1, 7), (4, 6, 1, 1), (2, 4, 1, 7), 1, {"x": "x", "weight": "w"}, {}),
    "conv, strides and dilations": (
        "conv", (1, 3, 11, 9), (4, 3, 3, 2), (1, 4, 4, 4), 1, {"x": "x", "weight": "w"},
        {**CONV, "strides": (2, 2), "dilations": (2, 1), "pad": (0, 1, 0, 0)},
    ),
    "conv, same": (
        "conv", (1, 3, 5, 8), (4, 3, 2, 4), (1, 4, 3, 4), 1, {"x": "x", "weight": "w"},
        {**CONV, "strides": (2, 2), "pad_type": "same"},
    ),
    "conv, same_lower": (
        "conv", (1, 3, 5, 8), (4, 3, 2, 4), (1, 4, 3, 4), 1, {"x": "x", "weight": "w"},
        {**CONV, "strides": (2, 2), "pad_type": "same_lower"},
    ),
    "conv of one dimension": ("conv", (2, 3, 9), (4, 3, 4), (2, 4, 6), 1, {"x": "x", "weight": "w"}, {}),
    "conv_transpose": (
        "conv_transpose", (1, 3, 4, 4), (3, 4, 2, 2), (1, 4, 8, 8), 1, {"x": "x", "weight": "w"},
        {"strides": (2, 2), "pad_type": "valid"},
    ),
}  # fmt: skip


def of_layer(name, weight):
    kind, given, _, output, _, inputs, flags = LAYERS[name]
    return program(given, const("w", weight), layer(kind, "y", output, inputs, **flags), output="y")


def collected(made, inputs, **settings):
    return collect_hessians(made, inputs, Collecting(rows=10**6, engine=ENGINE, **settings))


@pytest.mark.parametrize("name", LAYERS)
def test_noise_is_what_an_error_does_to_the_output(name):
    _, given, shape, _, axis, _, _ = LAYERS[name]
    error = normal(*shape)
    inputs = [{"x": normal(*given)} for _ in range(3)]
    (weight,) = weights_of(of_layer(name, error))
    hessian = collected(of_layer(name, normal(*shape)), inputs)["w"]
    moved = [ENGINE.compile(of_layer(name, error)).run(each)["y"] for each in inputs]
    per_position = [np.square(np.moveaxis(each, axis, -1)).sum(-1) for each in moved]
    expected = np.mean(per_position) * (4 if name == "conv_transpose" else 1)  # a row makes 2x2 outputs
    assert np.isclose(hessian.noise(weight.matrix()), expected, rtol=1e-4)


def chain(weights):
    """A convolution, two layers that take its output, and one whose weight both of them have."""
    return program(
        (1, 3, 4, 4),
        *(const(name, value) for name, value in weights.items()),
        layer("conv", "a", (1, 4, 4, 4), {"x": "x", "weight": "w1"}, **CONV),
        layer("relu", "b", (1, 4, 4, 4), {"x": "a"}),
        layer("conv", "c", (1, 4, 4, 4), {"x": "b", "weight": "w2"}),
        layer("conv", "d", (1, 4, 4, 4), {"x": "b", "weight": "w3"}),
        layer("add", "e", (1, 4, 4, 4), {"x": "c", "y": "d"}),
        layer("conv", "f", (1, 4, 4, 4), {"x": "e", "weight": "w3"}),
        output="f",
    )


WEIGHTS = {"w1": normal(4, 3, 3, 3), "w2": normal(4, 4, 1, 1), "w3": normal(4, 4, 1, 1)}
INPUTS = [{"x": normal(1, 3, 4, 4)} for _ in range(4)]


def values_of(name, inputs):
    made = chain(WEIGHTS)
    body = made.main.body
    asked = Program({"main": Function("main", "CoreML7", Block(body.inputs, body.operations, (name,)))})
    found = [ENGINE.compile(asked).run(each)[name] for each in inputs]
    return np.concatenate([np.moveaxis(each, 1, -1).reshape(-1, 4) for each in found])


def test_layers_of_one_input_share_a_hessian_and_a_shared_weight_has_the_rows_of_all():
    found = collected(chain(WEIGHTS), INPUTS)
    b, e = values_of("b", INPUTS), values_of("e", INPUTS)
    assert np.allclose(found["w2"].blocks[0], b.T @ b / len(b), rtol=1e-4, atol=1e-5)
    both = np.concatenate([b, e])
    assert np.allclose(found["w3"].blocks[0], both.T @ both / len(both), rtol=1e-4, atol=1e-5)
    assert (found["w2"].rows, found["w3"].rows) == (64, 128)


def test_batches_of_layers_find_the_same():
    whole = collected(chain(WEIGHTS), INPUTS)
    done = []
    settings = Collecting(rows=10**6, values=1, engine=ENGINE)
    parts = collect_hessians(chain(WEIGHTS), INPUTS, settings, progress=lambda *at: done.append(at))
    assert done == [(number, 12) for number in range(1, 13)]
    for name, hessian in whole.items():
        assert np.array_equal(hessian.blocks[0], parts[name].blocks[0])


def test_batches_are_as_few_as_there_can_be_and_alike():
    """Of eight layers behind each other, as many bytes each, five of whose values fit at once."""
    names = ["x", *"abcdefgh"]
    layers = [
        layer("linear", after, (2, 8), {"x": before, "weight": f"to_{after}"})
        for before, after in itertools.pairwise(names)
    ]
    weights = [const(f"to_{name}", normal(8, 8)) for name in names[1:]]
    made = program((2, 8), *weights, *layers, output="h")
    asked = []

    class Watching:
        def compile(self, program):
            asked.append(len(program.main.outputs))
            return ENGINE.compile(program)

    inputs = [{"x": normal(2, 8)}]
    collect_hessians(made, inputs, Collecting(values=5 * 64, engine=Watching()))
    assert asked == [3, 4]  # and the first one's input is the program's
    asked.clear()
    collect_hessians(made, inputs, Collecting(values=8 * 64, engine=Watching()))
    assert asked == [7]


def test_the_bound_on_memory_makes_blocks():
    whole = collected(chain(WEIGHTS), INPUTS)["w1"].blocks[0]
    parts = collected(chain(WEIGHTS), INPUTS, memory=4 * (3 * 81 + 2 * 16))["w1"].blocks
    assert [len(block) for block in parts] == [9, 9, 9]
    for place, block in enumerate(parts):
        inside = slice(9 * place, 9 * place + 9)
        assert np.allclose(block, whole[inside, inside], rtol=1e-5)


def test_too_little_memory_is_said():
    with pytest.raises(CalibrationError, match=r"at least 1100 bytes .* got a bound of 100"):
        collected(chain(WEIGHTS), INPUTS, memory=100)


def test_fewer_rows_estimate_the_same():
    drawn = collect_hessians(chain(WEIGHTS), INPUTS * 20, Collecting(rows=4, engine=ENGINE))["w2"]
    whole = collected(chain(WEIGHTS), INPUTS)["w2"]
    assert drawn.rows == 320
    assert np.allclose(drawn.blocks[0], whole.blocks[0], atol=0.2 * whole.diagonal().max())


def test_an_interrupted_calibration_goes_on(tmp_path):
    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    made, settings = chain(WEIGHTS), Collecting(rows=10**6, values=1, engine=ENGINE)
    with pytest.raises(KeyboardInterrupt):
        collect_hessians(made, INPUTS, settings, folder=tmp_path, progress=stop)
    done = []
    found = collect_hessians(
        chain(WEIGHTS), INPUTS, settings, folder=tmp_path, progress=lambda *at: done.append(at)
    )
    assert done[-1] == (8, 8)  # one of three batches was finished
    again = []
    collect_hessians(made, INPUTS, settings, folder=tmp_path, progress=lambda *at: again.append(at))
    assert again == []
    whole = collected(chain(WEIGHTS), INPUTS)
    assert all(np.array_equal(found[name].blocks[0], whole[name].blocks[0]) for name in whole)


def test_hessians_that_are_left_are_read_when_they_are_asked_for(tmp_path):
    made, settings = chain(WEIGHTS), Collecting(rows=10**6, values=1, engine=ENGINE)
    left = collect_statistics(made, INPUTS, settings, folder=tmp_path, left_there=True).hessians
    whole = collected(made, INPUTS)
    assert left.keys() == whole.keys()
    assert "y" not in left
    for name in whole:
        assert np.array_equal(left[name].blocks[0], whole[name].blocks[0])
        assert left[name].rows == whole[name].rows
    assert left["w1"] is not left["w1"]
    assert left.get("y") is None
    again = collect_statistics(made, INPUTS, settings, folder=tmp_path, left_there=True, progress=pytest.fail)
    assert np.array_equal(again.hessians["w1"].blocks[0], whole["w1"].blocks[0])
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CalibrationError, match=r"Hessian of 'w2' in .* calibrate again"):
        left["w2"]
    with pytest.raises(ValueError, match="a folder with left_there"):
        collect_statistics(made, INPUTS, settings, left_there=True)


@pytest.mark.parametrize("change", ["weight", "input", "rows", "memory", "damage"])
def test_hessians_of_something_else_are_not_taken(tmp_path, change):
    settings = Collecting(rows=10**6, engine=ENGINE)
    collect_hessians(chain(WEIGHTS), INPUTS, settings, folder=tmp_path)
    weights, inputs = dict(WEIGHTS), INPUTS
    if change == "weight":
        weights["w2"] = 2 * weights["w2"]
    elif change == "input":
        inputs = [*INPUTS[:-1], {"x": INPUTS[-1]["x"] + 1}]
    elif change == "damage":
        for path in tmp_path.rglob("*.npz"):
            path.write_bytes(path.read_bytes()[:-30])
    settings = Collecting(
        rows=8 if change == "rows" else 10**6, memory=1200 if change == "memory" else 10**9, engine=ENGINE
    )
    done = []
    collect_hessians(chain(weights), inputs, settings, folder=tmp_path, progress=lambda *at: done.append(at))
    assert done


def test_what_is_not_finite_is_named():
    inputs = [INPUTS[0], {"x": np.full((1, 3, 4, 4), np.nan, np.float32)}]
    with pytest.raises(CalibrationError, match=r"in 'x'.*calibration input 1"):
        collected(chain(WEIGHTS), inputs)
    huge = {**WEIGHTS, "w1": np.full((4, 3, 3, 3), 3e38, np.float32)}
    with pytest.raises(CalibrationError, match=r"in 'b'.*calibration input 0"):
        collected(chain(huge), INPUTS)


def test_no_inputs_and_wrong_inputs_are_refused():
    with pytest.raises(CalibrationError, match="at least one"):
        collected(chain(WEIGHTS), [])
    with pytest.raises(CalibrationError, match=r"calibration input 0.*\(1, 3, 5, 5\)"):
        collected(chain(WEIGHTS), [{"x": normal(1, 3, 5, 5)}])
    with pytest.raises(CalibrationError, match=r"calibration input 1.*'y'"):
        collected(chain(WEIGHTS), [INPUTS[0], {"y": normal(1, 3, 4, 4)}])


def test_weights_that_no_layer_multiplies_are_left_out():
    made = program(
        (1, 4, 4, 4),
        const("grouped", normal(4, 2, 1, 1)),
        const("bias", normal(4)),
        const("factor", normal(1, 4, 1, 1)),
        layer("conv", "a", (1, 4, 4, 4), {"x": "x", "weight": "grouped", "bias": "bias"}, groups=2),
        layer("mul", "b", (1, 4, 4, 4), {"x": "a", "y": "factor"}),
        output="b",
    )
    assert inputs_of(made) == {}
    assert collected(made, [{"x": normal(1, 4, 4, 4)}]) == {}
