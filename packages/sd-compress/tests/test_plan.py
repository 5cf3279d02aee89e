"""The best recipe for a budget, against all recipes there are."""

import itertools
import math
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sd_compress import Keep, Palettize
from sd_compress.errors import BudgetError
from sd_compress.knapsack import Option, least_loss
from sd_compress.plan import plan_for_bits, plan_for_bytes, plan_for_snr
from sd_compress.sensitivity import Candidate, Sensitivity

NUMBERS = st.one_of(st.integers(0, 50).map(float), st.floats(0, 50))
OPTIONS = st.lists(st.builds(Option, NUMBERS, NUMBERS), min_size=1, max_size=4)
THINGS = st.lists(OPTIONS, min_size=1, max_size=5)


def every(things):
    for chosen in itertools.product(*things):
        yield math.fsum(one.cost for one in chosen), math.fsum(one.loss for one in chosen)


@given(THINGS, st.floats(0, 200))
@settings(max_examples=80, deadline=None)
def test_no_choice_is_below_the_bound_and_what_is_found_is_near_it(things, limit):
    within = [loss for cost, loss in every(things) if cost <= limit]
    found = least_loss(things, limit)
    if found is None:
        assert not within
        return
    chosen = [options[place] for options, place in zip(things, found.places, strict=True)]
    assert math.isclose(math.fsum(one.cost for one in chosen), found.cost)
    assert found.cost <= limit
    assert math.isclose(math.fsum(one.loss for one in chosen), found.loss)
    assert found.bound <= min(within) * (1 + 1e-9) + 1e-9
    assert found.loss >= min(within) * (1 - 1e-9)
    largest = max(max(one.loss for one in options) - min(one.loss for one in options) for options in things)
    assert found.loss <= min(within) + largest + 1e-9


@given(THINGS)
@settings(max_examples=30, deadline=None)
def test_without_a_limit_every_thing_has_the_least_loss(things):
    found = least_loss(things, math.inf)
    assert found.loss == found.bound
    assert math.isclose(found.loss, math.fsum(min(one.loss for one in options) for options in things))


def test_what_is_left_of_the_limit_is_used():
    """The hull's next step (to 10) does not fit, but a change that is not on the hull does."""
    things = [[Option(0, 10), Option(4, 9), Option(10, 0)]]
    assert least_loss(things, 5).places == (1,)


def weights(count, seed=0):
    """Noise that falls by 6 dB a bit, from levels and sizes that differ."""
    for number in range(count):
        elements = 1000 * (1 + (number * 7 + seed) % 5)
        level = 10 ** (((number * 13 + seed) % 9) / 3)
        options = [Candidate(Palettize(n), elements * n // 8, level * 4.0**-n) for n in (1, 2, 3, 4, 6, 8)]
        yield Sensitivity(f"w{number}", elements, (Candidate(Keep(), 2 * elements, 0.0), *options))


def uniform(chosen, nbits):
    picked = [next(one for one in each.candidates if one.scheme == Palettize(nbits)) for each in chosen]
    return sum(one.stored_bytes for one in picked), sum(one.noise for one in picked)


@pytest.mark.parametrize("nbits", [2, 3, 4, 6])
def test_no_uniform_recipe_of_the_same_size_is_as_good(nbits):
    chosen = list(weights(30))
    size, noise = uniform(chosen, nbits)
    plan = plan_for_bytes(chosen, size)
    assert plan.stored_bytes <= size
    assert plan.noise < noise / 1.5
    assert 0 <= plan.gap < 0.05


@pytest.mark.parametrize("snr", [10.0, 20.0, 35.5])
def test_a_quality_is_met_by_the_smallest_recipe(snr):
    chosen = list(weights(30))
    plan = plan_for_snr(chosen, snr)
    assert plan.snr >= snr
    assert 0 <= plan.gap < 0.05
    with_as_much = plan_for_bytes(chosen, plan.stored_bytes * 0.95)
    assert with_as_much.snr < snr


@given(st.floats(1.2, 16), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_bits_are_an_average_over_elements(bits, seed):
    plan = plan_for_bits(list(weights(6, seed)), bits)
    assert plan.bits_per_weight <= bits + 1e-9
    assert set(plan.schemes) == {f"w{number}" for number in range(6)}


def test_more_noise_comes_with_fewer_bits():
    chosen = list(weights(12))
    plans = [plan_for_bits(chosen, bits) for bits in (1.5, 2.5, 4, 5.5, 8, 16)]
    noises = [plan.noise for plan in plans]
    assert noises == sorted(noises, reverse=True)
    assert plans[-1].noise == 0
    assert plans[-1].snr == math.inf
    assert plans[-1].gap == 0


def test_a_budget_that_no_recipe_meets_names_the_nearest():
    chosen = list(weights(6))
    with pytest.raises(BudgetError, match=r"at least 0\.00\d MB \(1\.000 bits .*, got 0\.001 MB"):
        plan_for_bytes(chosen, 500)
    lossy = [Sensitivity("w", 8, (Candidate(Palettize(8), 8, 0.01), Candidate(Palettize(4), 4, 0.1)))]
    with pytest.raises(BudgetError, match=r"at most 20\.0 dB.*got 25 dB"):
        plan_for_snr(lossy, 25)


@pytest.mark.parametrize("seed", range(5))
def test_the_nearest_budget_that_is_named_can_be_met(seed):
    """In the unit that was asked in, rounded so that it can be typed in."""
    table = 16 + seed
    chosen = [
        Sensitivity(one.weight, one.elements, (Candidate(Palettize(1), one.elements // 8 + table, 1.0),))
        for one in weights(6, seed)
    ]
    with pytest.raises(BudgetError, match=r"at least [\d.]+ bits for each .*, got 0\.1$") as said:
        plan_for_bits(chosen, 0.1)
    bits = float(re.search(r"[\d.]+", str(said.value))[0])
    assert plan_for_bits(chosen, bits).bits_per_weight > bits - 0.001
    with pytest.raises(BudgetError) as said:
        plan_for_bytes(chosen, 10, beside=7)
    plan_for_bytes(chosen, float(re.search(r"[\d.]+", str(said.value))[0]) * 1e6 - 7, beside=7)


@given(st.integers(0, 30), st.floats(0.1, 1))
@settings(max_examples=30, deadline=None)
def test_a_plan_of_few_weights_is_held_against_all_recipes(seed, share):
    chosen = list(weights(3, seed))
    limit = share * sum(each.candidates[0].stored_bytes for each in chosen)
    recipes = itertools.product(*(each.candidates for each in chosen))
    noises = [
        sum(one.noise for one in each) for each in recipes if sum(one.stored_bytes for one in each) <= limit
    ]
    assume(noises)
    plan = plan_for_bytes(chosen, limit)
    assert min(noises) * (1 - 1e-9) <= plan.noise
    assert plan.noise * (1 - plan.gap) <= min(noises) * (1 + 1e-9)
