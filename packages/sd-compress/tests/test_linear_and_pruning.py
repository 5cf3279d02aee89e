"""Integers with scales, and which elements stay, against their definitions."""

from fractions import Fraction

import numpy as np
import pytest
from compressing import program
from sd_compress import Linear, PerBlock, PerChannel, PerTensor, Prune, UnsuitableError, weights_of
from sd_compress.pruning import kept_elements
from sd_compress.quantizing import quantized

RNG = np.random.default_rng(5)

#: The first integer, the last, and the one that is zero in the symmetric mode.
INTEGERS = {"int8": (-128, 127, 0), "uint8": (0, 255, 128), "int4": (-8, 7, 0), "uint4": (0, 15, 8)}
#: By granularity, the elements of [6, 8] that share a scale.
SHARED = {
    PerTensor(): [(slice(None), slice(None))],
    PerChannel(): [(row, slice(None)) for row in range(6)],
    PerChannel(1): [(slice(None), column) for column in range(8)],
    PerBlock(4): [(row, slice(start, start + 4)) for row in range(6) for start in (0, 4)],
}
VALUES = {
    "around zero": RNG.standard_normal((6, 8)),
    "above zero": RNG.random((6, 8)) + 0.5,
    "below zero": -RNG.random((6, 8)) - 0.5,
    "as large as there is": np.linspace(-65504, 65504, 48).reshape(6, 8),
    "one is large": np.where(np.arange(48).reshape(6, 8) % 7 == 0, -65504, 1000.0),
}


def of(values):
    (weight,) = weights_of(program({"w": values}))
    return weight


def stretched(per_block, shape):
    for axis, size in enumerate(shape):
        per_block = per_block.repeat(size // per_block.shape[axis], axis)
    return per_block


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("mode", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_element_is_the_next_step_of_its_scale(dtype, mode, shared, values):
    given = VALUES[values].astype(np.float16)
    found = quantized(of(given), given, Linear(dtype, mode, shared))
    first, last, zero = INTEGERS[dtype]
    data = found.data.astype(np.float64)
    scale = stretched(found.scale, given.shape).astype(np.float64)
    offset = np.zeros_like(scale) if found.offset is None else stretched(found.offset, given.shape)
    decoded = (data - offset) * scale
    assert found.scale.dtype == np.float16
    assert np.isfinite(decoded.astype(np.float16)).all()
    if mode == "symmetric":
        assert (offset == zero).all()
        assert data.min() >= zero - (last - zero), "as far below zero as above it"
    for place in SHARED[shared]:
        exact, steps = given[place].astype(np.float64), data[place]
        (step,) = np.unique(scale[place])
        low, high = min(0, exact.min()), max(0, exact.max())
        wanted = (high - low) / (last - first)
        if mode == "symmetric":
            wanted = np.abs(exact).max() / (last - zero)
        is_large = abs(exact).max() > 60000  # the last step, or a scale rounded up, may be infinite in fp16
        assert np.isclose(step, wanted, rtol=2**-9 if is_large else 2**-10)
        edge = 1.01 if is_large else 0.51
        assert np.abs(decoded[place] - exact).max() <= edge * step + 2**-10 * np.abs(exact).max()
        assert first <= steps.min()
        assert steps.max() <= last
    if values == "around zero" and shared == PerTensor():
        used = data.max() - data.min()
        assert used >= last - first - 1 if mode == "asymmetric" else np.abs(data - zero).max() == last - zero


@pytest.mark.parametrize("axis", [2, 3])
def test_an_axis_that_is_not_there(axis):
    values = VALUES["around zero"].astype(np.float16)
    with pytest.raises(UnsuitableError, match=f"axis {axis} of 2"):
        quantized(of(values), values, Linear(granularity=PerChannel(axis)))


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.73, 0.999])
@pytest.mark.parametrize("kind", ["different", "alike", "a few", "with zeros"])
def test_the_largest_stay_and_no_more_of_them(kind, sparsity):
    values = {
        "different": RNG.permutation(np.linspace(-1, 2, 200)),
        "alike": np.full(200, -3.0),
        "a few": RNG.choice([-2.0, 0.5, 1.0], 200),
        "with zeros": RNG.permutation([0.0] * 120 + [1.0] * 80),
    }[kind].reshape(10, 20)
    kept = kept_elements(of(values.astype(np.float16)), values, Prune(sparsity))
    magnitudes = np.abs(values)
    wanted = round((1 - Fraction(str(sparsity))) * values.size)
    assert kept.sum() == max(1, min(wanted, np.count_nonzero(values)))
    assert not values.any() or (values[kept] != 0).all() or wanted == 0
    if not kept.all() and wanted:
        assert magnitudes[kept].min() >= magnitudes[~kept].max()
    first = np.flatnonzero(magnitudes == magnitudes[kept].min())
    stay = kept.reshape(-1)[first]
    assert not (~stay[:-1] & stay[1:]).any(), "of equal magnitudes the first stay"


@pytest.mark.parametrize("scheme", [Prune(0.5), Prune(n_m=(2, 4)), Prune(0.999)])
def test_one_element_stays_of_zeros(scheme):
    zeros = np.zeros((4, 8), np.float16)
    kept = kept_elements(of(zeros), zeros, scheme)
    assert np.flatnonzero(kept).tolist() == [0]
