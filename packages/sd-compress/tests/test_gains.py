"""How much of a layer's noise arrives at the output, against programs whose weights have that noise."""

import numpy as np
import pytest
from networks import CONV, ENGINE, const, layer, normal, program
from sd_compress import measure_gains

WEIGHTS = {"w1": normal(4, 3, 3, 3), "w2": normal(4, 4, 1, 1), "w3": normal(5, 64)}
SHARE = 0.25  # what gains.py adds


def network(weights, *, mixing=False):
    """Two convolutions with a bias, around a relu and a skip, then a linear layer; rows of a batch apart."""
    steps = [
        layer("conv", "a", (2, 4, 4, 4), {"x": "x", "weight": "w1", "bias": "b1"}, **CONV),
        layer("relu", "b", (2, 4, 4, 4), {"x": "a"}),
        layer("conv", "c", (2, 4, 4, 4), {"x": "b", "weight": "w2", "bias": "b1"}),
        layer("add", "d", (2, 4, 4, 4), {"x": "c", "y": "b"}),
        layer("reshape", "e", (2, 64), {"x": "d"}, shape=(2, 64)),
        layer("linear", "f", (2, 5), {"x": "e", "weight": "w3"}),
    ]
    if mixing:
        steps.append(layer("softmax", "g", (2, 5), {"x": "f"}, axis=0))
    constants = [const(name, value) for name, value in weights.items()]
    return program(
        (2, 3, 4, 4), *constants, const("b1", np.float32([5, -5, 3, 0])), *steps, output=steps[-1].name
    )


INPUTS = [{"x": normal(2, 3, 4, 4)} for _ in range(2)]


def noise_of(name, *, row, mixing=False):
    """Noise over signal in rows of the output when a weight has the noise, over the share's square."""
    rng = np.random.default_rng(len(WEIGHTS[name]))
    channels, shape = len(WEIGHTS[name]), [-1] + [1] * (WEIGHTS[name].ndim - 1)
    signs = rng.choice(np.array([-1, 1]), [channels]).reshape(shape)
    order = rng.permutation(channels)
    moved = WEIGHTS[name] + np.float32(SHARE) * WEIGHTS[name][order] * signs
    exact, other = (
        ENGINE.compile(network(one, mixing=mixing)) for one in (WEIGHTS, {**WEIGHTS, name: moved})
    )
    noise = signal = 0.0
    for arrays in INPUTS:
        (before,), (after,) = exact.run(arrays).values(), other.run(arrays).values()
        noise += np.square(after - before)[row].sum()
        signal += np.square(before)[row].sum()
    return noise / signal / SHARE**2


def test_a_gain_is_what_noise_of_the_weight_does():
    done = []
    found = measure_gains(network(WEIGHTS), INPUTS, engine=ENGINE, progress=lambda *at: done.append(at))
    assert done == [(1, 2), (2, 2)]  # two weights in a run, one in each row
    rows = {"w1": slice(0, 1), "w2": slice(1, 2), "w3": slice(0, 1)}
    for name, row in rows.items():
        assert found[name] == pytest.approx(noise_of(name, row=row), rel=1e-3)
    assert found["w3"] == pytest.approx(1, rel=0.7)  # the last layer: its noise is the output's


def test_rows_that_are_not_apart_are_not_used_apart():
    done = []
    made = network(WEIGHTS, mixing=True)
    found = measure_gains(made, INPUTS, engine=ENGINE, progress=lambda *at: done.append(at))
    assert done[-1] == (3, 3)
    for name in WEIGHTS:
        assert found[name] == pytest.approx(noise_of(name, row=slice(None), mixing=True), rel=1e-3)


def test_a_layer_that_nothing_sees_has_no_gain():
    zero = {**WEIGHTS, "w2": np.zeros((4, 4, 1, 1), np.float32)}
    assert measure_gains(network(zero), INPUTS, engine=ENGINE)["w2"] == 0


def test_without_layers_or_inputs_there_are_no_gains():
    made = program((2, 3), layer("relu", "a", (2, 3), {"x": "x"}), output="a")
    assert measure_gains(made, [{"x": normal(2, 3)}], engine=ENGINE) == {}
    assert measure_gains(network(WEIGHTS), [], engine=ENGINE) == {}
