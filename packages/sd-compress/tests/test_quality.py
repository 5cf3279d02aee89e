"""Noise that is measured, and the smallest plan that is good enough by that measure."""

import math

import numpy as np
import pytest
from networks import ENGINE, const, layer, normal, program
from sd_compress import BudgetError, Candidate, Keep, Palettize, Sensitivity, signal_to_noise, smallest_plan


def scaled(factor):
    weight = factor * np.eye(4, dtype=np.float32)
    return program(
        (3, 4), const("w", weight), layer("linear", "y", (3, 4), {"x": "x", "weight": "w"}), output="y"
    )


def test_decibels_are_of_signal_over_noise():
    inputs = [{"x": normal(3, 4)} for _ in range(3)]
    assert signal_to_noise(scaled(1), scaled(1.1), inputs, ENGINE) == pytest.approx(20, abs=1e-3)
    assert signal_to_noise(scaled(1), scaled(1), inputs, ENGINE) == math.inf


def weights(count=8):
    for number in range(count):
        options = [Candidate(Palettize(n), 100 * n, 0.3 * 4.0**-n * (1 + number)) for n in (1, 2, 3, 4, 6, 8)]
        yield Sensitivity(f"w{number}", 800, (Candidate(Keep(), 1600, 0.0), *options))


@pytest.mark.parametrize("offset", [-9.0, 0.0, 3.5, 15.0])
def test_what_is_measured_counts_and_not_what_is_expected(offset):
    measured = []

    def measure(plan):
        measured.append((plan, plan.snr + offset))
        return measured[-1][1]

    plan, got = smallest_plan(list(weights()), 25, measure)
    assert 25 <= got == plan.snr + offset
    assert plan.stored_bytes == min(one.stored_bytes for one, snr in measured if snr >= 25)
    assert got < 28  # steps of a bit are coarse with eight weights
    assert len(measured) <= 6


def test_a_quality_that_is_never_measured_is_refused_with_the_best_that_was():
    with pytest.raises(BudgetError, match=r"at most 12\.5 dB.*got 30 dB"):
        smallest_plan(list(weights()), 30, lambda plan: min(plan.snr, 12.5))


def test_plans_far_apart_are_not_tried_twice():
    """All weights at 2 bits are expected to be much better than was asked for, and are not good enough."""
    options = (
        Candidate(Keep(), 1600, 0.0),
        Candidate(Palettize(4), 400, 1e-5),
        Candidate(Palettize(2), 200, 1e-3),
    )
    several = [Sensitivity(f"w{number}", 800, options) for number in range(4)]
    measured = []

    def measure(plan):
        measured.append(plan.schemes)
        return plan.snr - 6

    plan, got = smallest_plan(several, 20, measure)
    assert got >= 20
    assert [scheme.nbits for scheme in plan.schemes.values()].count(2) == 2  # three would be 19.2 dB
    assert len(measured) == len({tuple(one.values()) for one in measured})
