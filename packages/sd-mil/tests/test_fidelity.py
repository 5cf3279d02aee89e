import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_mil import ComparisonError, psnr


def apple_psnr(a, b):
    """``compute_psnr`` of apple/ml-stable-diffusion's torch2coreml.py."""
    noise = np.sqrt(((a - b) * (a - b)).sum() / b.size)
    return 20 * np.log10((np.abs(b).max() + 1e-5) / (noise + 1e-10))


@given(st.floats(1e-4, 1e-2), st.integers(0, 99))
def test_agrees_with_apples_measure_on_small_noise(noise, seed):
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((3, 50))
    candidate = signal + noise * rng.standard_normal(signal.shape)
    assert psnr(signal, candidate) == pytest.approx(apple_psnr(signal, candidate), abs=0.1)


def test_known_values():
    assert psnr([0.0, 10.0], [0.1, 9.9]) == pytest.approx(40)
    assert psnr(np.ones(4, np.float16), np.full(4, 1.5, np.float16)) == pytest.approx(20 * math.log10(2))


def test_the_peak_is_the_references():
    assert psnr([1.0, 1.0], [1.0, 101.0]) < psnr([1.0, 101.0], [1.0, 1.0])


def test_equal_is_infinite_and_nan_is_minus_infinite():
    assert psnr([1.0, 2.0], [1.0, 2.0]) == math.inf
    assert psnr([0.0], [0.0]) == math.inf
    assert psnr([0.0], [1.0]) == -math.inf
    assert (
        psnr([1.0], [math.nan]) == psnr([math.nan], [math.nan]) == psnr([math.inf], [math.inf]) == -math.inf
    )


def test_shapes_must_agree():
    with pytest.raises(ComparisonError, match="one shape"):
        psnr(np.zeros(3), np.zeros((3, 1)))
    with pytest.raises(ComparisonError, match="one shape"):
        psnr([], [])
