"""Signal to noise against the formula, over all that was added."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_compress import SignalToNoise


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(st.floats(1e-3, 0.9), st.floats(1e-3, 1e3))
def test_it_is_that_of_the_whole_and_knows_no_scale(share: float, scale: float) -> None:
    inputs = [drawn(3, 5, seed=seed) * seed for seed in (1, 2, 7)]
    noise = [drawn(3, 5, seed=seed + 100) * share for seed in range(3)]
    meter = SignalToNoise()
    for expected, error in zip(inputs, noise, strict=True):
        meter.add({"y": scale * expected}, {"y": scale * (expected + error)})
    whole = np.concatenate(inputs).ravel(), np.concatenate(noise).ravel()
    assert meter.decibels()["y"] == pytest.approx(
        20 * math.log10(np.linalg.norm(whole[0]) / np.linalg.norm(whole[1])), abs=0.01
    )


def test_each_output_has_its_own() -> None:
    meter = SignalToNoise()
    meter.add(
        {"a": np.ones(4), "b": np.ones(4)}, {"a": np.ones(4), "b": np.full(4, 1.1), "other": np.ones(1)}
    )
    found = meter.decibels()
    assert found["a"] is None
    assert found["b"] == pytest.approx(20)
    assert found.keys() == {"a", "b"}


@pytest.mark.parametrize("got", [np.nan, np.inf, 1e300])
def test_what_is_lost_is_least(got: float) -> None:
    meter = SignalToNoise()
    meter.add({"a": np.ones(2)}, {"a": np.full(2, got)})
    meter.add({"a": np.ones(2)}, {"a": np.ones(2)})
    assert meter.decibels() == {"a": -200.0}


def test_half_floats_do_not_overflow() -> None:
    meter = SignalToNoise()
    meter.add({"a": np.full(4, 60000, np.float16)}, {"a": np.full(4, 54000, np.float16)})
    assert meter.decibels()["a"] == pytest.approx(20, abs=0.05)


def test_shapes_and_names_have_to_agree() -> None:
    with pytest.raises(ValueError, match="shape"):
        SignalToNoise().add({"a": np.ones(2)}, {"a": np.ones((2, 1))})
    with pytest.raises(KeyError):
        SignalToNoise().add({"a": np.ones(2)}, {"b": np.ones(2)})
