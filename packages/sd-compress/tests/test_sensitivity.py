"""Noise in closed form, against the noise of the layer's outputs."""

import numpy as np
import pytest
from sd_compress import Keep, Palette, Palettize, Weight, optimal_palette
from sd_compress.calibration.hessians import Accumulator
from sd_compress.calibration.palettes import improved
from sd_compress.calibration.rounding import remaining_noise
from sd_compress.errors import UnsuitableError
from sd_compress.sensitivity import sensitivities, stored_sizes
from sd_mil import Constant, TensorType

RNG = np.random.default_rng(7)


def weight(values, name="w"):
    constant = Constant(TensorType("fp16", values.shape), values.astype(np.float16))
    return Weight(name, "main", "linear", "op", "weight", constant)


def quantiles(one, scheme):
    if scheme.nbits == 1:
        raise UnsuitableError("no")
    values = one.read().astype(np.float32)
    table = np.quantile(values, (np.arange(2**scheme.nbits) + 0.5) / 2**scheme.nbits)
    indices = np.abs(values[..., None] - table).argmin(-1)
    return Palette(table[None].astype(np.float16), indices.astype(np.uint8))


def inputs(rng, count=24):
    return (rng.standard_normal((500, count)) @ rng.standard_normal((count, count))).astype(np.float32)


def hessian_of(rows):
    sums = Accumulator([rows.shape[1]])
    sums.add(rows)
    return sums.hessian()


def test_noise_is_that_of_the_layer_s_output():
    rng = np.random.default_rng(1)
    rows, one = inputs(rng), weight(rng.standard_normal((10, 24)))
    (found,) = sensitivities([one], {"w": hessian_of(rows)}, quantiles, compensated=False)
    exact = rows @ one.read().astype(np.float32).T
    assert found.candidates[0].scheme == Keep()
    assert [each.scheme.nbits for each in found.candidates[1:]] == [2, 3, 4, 6, 8]  # 1 does not suit
    for each in found.candidates[1:]:
        got = rows @ quantiles(one, each.scheme).decode().astype(np.float32).T
        assert np.isclose(each.noise, np.square(got - exact).sum() / np.square(exact).sum(), rtol=1e-3)


def test_bytes_are_those_of_indices_and_tables():
    (found,) = sensitivities([weight(np.linspace(-1, 1, 60).reshape(5, 12))], {}, quantiles)
    sizes = {getattr(each.scheme, "nbits", 16): each.stored_bytes for each in found.candidates}
    assert sizes == {16: 120, 2: 15 + 8, 3: 23 + 16, 4: 30 + 32, 6: 45 + 128, 8: 60 + 512}


@pytest.mark.parametrize("shape", [(5, 12), (1, 1), (3, 7)])
def test_bytes_are_known_before_palettes_are(shape):
    one = weight(RNG.standard_normal(shape))
    (found,), (known,) = sensitivities([one], {}, optimal_palette), stored_sizes([one])
    assert (known.weight, known.elements) == (found.weight, found.elements)
    assert [(each.scheme, each.stored_bytes) for each in known.candidates] == [
        (each.scheme, each.stored_bytes) for each in found.candidates
    ]


def test_what_compensation_leaves_is_told():
    """To a factor of two for each of several spectra, whose shares differ by a hundred."""
    rng = np.random.default_rng(3)
    one = weight(rng.standard_normal((64, 24)))
    for decay in (1.0, 0.8, 0.5):
        rows = rng.standard_normal((2000, 24)) * decay ** np.arange(24)
        known = hessian_of((rows @ np.linalg.qr(rng.standard_normal((24, 24)))[0]).astype(np.float32))
        start = quantiles(one, Palettize(4))
        noise = [
            known.noise(one.matrix().astype(np.float32) - each.decode())
            for each in (start, improved(one, start, known))
        ]
        assert 0.5 < noise[1] / noise[0] / remaining_noise(known) < 2


def test_a_weight_without_signal_is_no_risk():
    zeros = weight(np.zeros((4, 24)))
    dead = hessian_of(np.zeros((5, 24), np.float32))
    for known in ({}, {"w": dead}):
        (found,) = sensitivities([zeros], known, quantiles)
        assert all(each.noise == 0 for each in found.candidates)
    (found,) = sensitivities([weight(np.ones((4, 24)))], {"w": dead}, quantiles)
    assert all(each.noise == 0 for each in found.candidates)
