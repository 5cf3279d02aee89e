"""Noise bit for bit: against what torch drew when the fixture was recorded, and against the torch here.

Run this file as a script to record the fixture anew (needs torch on an x86 processor with AVX2).
"""

# ruff: noqa: NPY002  the legacy global generator is what is compared with
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_runtime.errors import SettingsError
from sd_runtime.noise import _fma, draw_noise

FIXTURE = Path(__file__).parent / "fixtures" / "torch_noise.json"
SIZES = (*range(1, 65), 100, 1000, 4096, 16384, 65536 + 5)
SEEDS = (0, 1, 93, 12345, 2**32 - 1, 2**32, 2**63, 2**64 - 1, -1)


def digest(noise: np.ndarray) -> str:
    return hashlib.sha256(noise.astype("<f4").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("seed", SEEDS)
def test_torch_noise_is_what_torch_drew(seed: int) -> None:
    recorded = json.loads(FIXTURE.read_text())[str(seed)]
    drawn = {str(size): digest(draw_noise((size,), seed, "torch")) for size in SIZES}
    assert drawn == recorded


def test_torch_noise_of_the_documentation() -> None:
    # torch.manual_seed(0); torch.randn(3) and torch.randn(32)[:3]: the second kind of kernel starts at 16.
    np.testing.assert_array_equal(
        draw_noise((3,), 0, "torch"),
        np.float32([1.5409960746765137, -0.293428897857666, -2.1787893772125244]),
    )
    np.testing.assert_array_equal(
        draw_noise((32,), 0, "torch")[:3],
        np.float32([-1.1258398294448853, -1.1523602008819580, -0.25057858228683472]),
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_torch_noise_is_that_of_the_torch_installed_here(seed: int) -> None:
    torch = pytest.importorskip("torch")
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch runs another kernel on this processor")
    for shape in [(size,) for size in SIZES] + [(2, 4, 64, 64), (1, 4, 9, 13)]:
        torch.manual_seed(seed)
        np.testing.assert_array_equal(draw_noise(shape, seed, "torch"), torch.randn(shape).numpy())


@pytest.mark.parametrize("seed", [0, 93, 2**32 - 1])
def test_numpy_noise_is_that_of_the_legacy_generator(seed: int) -> None:
    before = np.random.get_state()
    try:
        np.random.seed(seed)
        expected = np.random.randn(2, 4, 8, 8).astype(np.float32)
    finally:
        np.random.set_state(before)
    np.testing.assert_array_equal(draw_noise((2, 4, 8, 8), seed), expected)


@pytest.mark.parametrize("rng", ["numpy", "torch"])
def test_the_global_generator_is_left_alone(rng: str) -> None:
    before = np.random.get_state()[1].tolist()
    draw_noise((100,), 93, rng)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("rng", ["numpy", "torch"])
@given(shape=st.lists(st.integers(0, 9), max_size=4), seed=st.integers(0, 2**32 - 1))
def test_noise_has_the_shape_asked_for_and_depends_on_the_count_alone(
    rng: str, shape: list[int], seed: int
) -> None:
    noise = draw_noise(shape, seed, rng)
    assert noise.shape == tuple(shape)
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise.ravel(), draw_noise((noise.size,), seed, rng))
    assert np.isfinite(noise).all()


@pytest.mark.parametrize("rng", ["numpy", "torch"])
def test_noise_is_unit_gaussian(rng: str) -> None:
    noise = draw_noise((200_000,), 5, rng).astype(np.float64)
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1


@pytest.mark.parametrize(
    ("seed", "rng"),
    [
        (-1, "numpy"),
        (2**32, "numpy"),
        (2**64, "torch"),
        (-(2**63) - 1, "torch"),
        (1.5, "numpy"),
        (True, "torch"),
    ],
)
def test_seeds_out_of_range_are_refused(seed: int, rng: str) -> None:
    with pytest.raises(SettingsError, match=f"expected a seed from .* rng '{rng}'"):
        draw_noise((4,), seed, rng)


def test_numpy_integers_are_seeds() -> None:
    np.testing.assert_array_equal(draw_noise((4,), np.int64(93)), draw_noise((4,), 93))


def test_an_unknown_generator_lists_the_choices() -> None:
    with pytest.raises(SettingsError, match=r"numpy, torch, torch_cuda, got 'nvidia'"):
        draw_noise((4,), 0, "nvidia")


def test_fma_rounds_once_where_float64_lands_between_two_floats() -> None:
    # (1 + 2**-12)**2 = 1 + 2**-11 + 2**-24 lies exactly between two float32; 2**-60 is lost in float64.
    factor = np.float32([1 + 2**-12])
    below, above = 1 + 2**-11, 1 + 2**-11 + 2**-23
    assert _fma(factor, factor, np.float32(2**-60)) == above
    assert _fma(factor, factor, np.float32(-(2**-60))) == below
    assert _fma(factor, factor, np.float32(0)) == below  # a true tie goes to the even one


def record() -> None:
    import torch

    def drawn(size: int, seed: int) -> str:
        torch.manual_seed(seed)
        return digest(torch.randn(size).numpy())

    entries = {str(seed): {str(size): drawn(size, seed) for size in SIZES} for seed in SEEDS}
    FIXTURE.write_text(json.dumps(entries, indent=0) + "\n")


if __name__ == "__main__":
    record()
