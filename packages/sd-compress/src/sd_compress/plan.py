"""The best recipe for a budget: how many bits each weight gets.

Every weight gets one of its candidates. Their bytes add up, and so do their noises, over the signal; what is
least, with the other within the budget, is a knapsack problem (:mod:`sd_compress.knapsack`), whose bound says
how much better a recipe could be at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import BudgetError
from .knapsack import Choice, Option, least_loss
from .schemes import Scheme
from .sensitivity import Candidate, Sensitivity
from .snr import decibels


@dataclass(frozen=True, slots=True)
class Plan:
    """A scheme for each weight, and what is to be expected of them.

    ``noise`` is that of the output over its signal. ``gap`` is the share by which a recipe within the budget
    could be better at most: in noise where bytes were limited, in bytes where noise was.
    """

    schemes: Mapping[str, Scheme]
    elements: int
    stored_bytes: int
    noise: float
    gap: float

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each element, on average, tables included."""
        return 8 * self.stored_bytes / self.elements

    @property
    def snr(self) -> float:
        """Signal to noise that is expected of the output, in dB."""
        return decibels(self.noise)


def plan_for_bytes(weights: Sequence[Sensitivity], stored_bytes: float, *, beside: float = 0) -> Plan:
    """The recipe of least noise that takes at most ``stored_bytes``.

    ``beside``: bytes of the model that are not planned, for the message.

    Raises:
        BudgetError: no recipe is that small.
    """
    choice = least_loss(_in_bytes(weights), stored_bytes)
    if choice is None:
        smallest = _smallest(weights)
        raise BudgetError(
            f"expected a budget of at least {_upwards((smallest + beside) / 1e6)} MB "
            f"({_upwards(8 * smallest / max(1, _elements(weights)))} bits for each of the weights), "
            f"got {(stored_bytes + beside) / 1e6:.3f} MB"
        )
    return _plan(weights, choice)


def plan_for_bits(weights: Sequence[Sensitivity], bits: float) -> Plan:
    """The recipe of least noise with at most ``bits`` stored for each element, on average.

    Raises:
        BudgetError: no recipe has so few.
    """
    choice = least_loss(_in_bytes(weights), bits * _elements(weights) / 8)
    if choice is None:
        least = _upwards(8 * _smallest(weights) / max(1, _elements(weights)))
        raise BudgetError(
            f"expected at least {least} bits for each of the weights, tables included, got {bits:g}"
        )
    return _plan(weights, choice)


def plan_for_snr(weights: Sequence[Sensitivity], snr: float) -> Plan:
    """The smallest recipe whose expected signal to noise is at least ``snr`` dB.

    Raises:
        BudgetError: no recipe has so little noise, since no weight may be kept as it is.
    """
    things = [[Option(one.noise, one.stored_bytes) for one in weight.candidates] for weight in weights]
    choice = least_loss(things, 10 ** (-snr / 10))
    if choice is None:
        least = sum(min(option.cost for option in options) for options in things)
        raise BudgetError(
            f"expected at most {decibels(least):.1f} dB, the least noise there is, got {snr:g} dB"
        )
    return _plan(weights, choice)


def _in_bytes(weights: Sequence[Sensitivity]) -> list[list[Option]]:
    return [[Option(one.stored_bytes, one.noise) for one in weight.candidates] for weight in weights]


def _smallest(weights: Sequence[Sensitivity]) -> int:
    return sum(min(one.stored_bytes for one in weight.candidates) for weight in weights)


def _upwards(number: float) -> str:
    """Three decimals, none of them too few: who asks for what the message says is to get it."""
    return f"{math.ceil(number * 1000) / 1000:.3f}"


def _elements(weights: Sequence[Sensitivity]) -> int:
    return sum(weight.elements for weight in weights)


def _plan(weights: Sequence[Sensitivity], choice: Choice) -> Plan:
    chosen: list[Candidate] = [
        weight.candidates[place] for weight, place in zip(weights, choice.places, strict=True)
    ]
    return Plan(
        schemes={weight.weight: one.scheme for weight, one in zip(weights, chosen, strict=True)},
        elements=_elements(weights),
        stored_bytes=sum(one.stored_bytes for one in chosen),
        noise=math.fsum(one.noise for one in chosen),
        gap=(choice.loss - choice.bound) / choice.loss if choice.loss > 0 else 0.0,
    )
