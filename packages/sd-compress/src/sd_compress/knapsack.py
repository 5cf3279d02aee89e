"""One option for each of many things, so that one sum is least while another stays within a limit.

The multiple-choice knapsack problem. Could a thing be a mixture of two of its options, the optimum would
follow from the lower convex hulls of the options (Sinha and Zoltners, "The multiple-choice knapsack problem",
1979): take the steps along all hulls in the order of what they bring for what they cost, the last one in
part. That is a bound on every choice without mixtures. What is returned is where the whole steps lead, and
then every change of a single thing that still fits; it differs from the bound by less than what one step
brings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Option(NamedTuple):
    """What an option takes of what is limited, and the loss that comes with it."""

    cost: float
    loss: float


Things: TypeAlias = Sequence[Sequence[Option]]


@dataclass(frozen=True, slots=True)
class Choice:
    """The place of each thing's option. No choice within the limit has a total loss below ``bound``."""

    places: tuple[int, ...]
    cost: float
    loss: float
    bound: float


class _Step(NamedTuple):
    """Along the hull of a thing, from one option to the next, which costs more and loses less."""

    slope: float
    thing: int
    place: int
    cost: float


def least_loss(things: Things, limit: float) -> Choice | None:
    """A choice of small total loss whose total cost is at most ``limit``; None if there is none at all."""
    places = [_cheapest(options) for options in things]
    if not _total(things, places).cost <= limit:
        return None
    bound = None
    for step in sorted(step for thing, options in enumerate(things) for step in _steps(thing, options)):
        total = _total(things, places)
        if total.cost + step.cost > limit:
            bound = total.loss + step.slope * (limit - total.cost)
            break
        places[step.thing] = step.place
    _improve(things, places, limit)
    total = _total(things, places)
    return Choice(
        tuple(places), total.cost, total.loss, total.loss if bound is None else min(bound, total.loss)
    )


def _cheapest(options: Sequence[Option]) -> int:
    return min(range(len(options)), key=options.__getitem__)


def _total(things: Things, places: Sequence[int]) -> Option:
    chosen = [options[place] for options, place in zip(things, places, strict=True)]
    return Option(math.fsum(one.cost for one in chosen), math.fsum(one.loss for one in chosen))


def _steps(thing: int, options: Sequence[Option]) -> Iterator[_Step]:
    """From the cheapest option, always the steepest way down: the lower convex hull."""
    here = _cheapest(options)
    while True:
        now = options[here]
        ahead = [
            _Step((option.loss - now.loss) / (option.cost - now.cost), thing, place, option.cost - now.cost)
            for place, option in enumerate(options)
            if option.cost > now.cost and option.loss < now.loss
        ]
        if not ahead:
            return
        steepest = min(ahead, key=lambda step: (step.slope, -step.cost))
        yield steepest
        here = steepest.place


def _improve(things: Things, places: list[int], limit: float) -> None:
    """Change single things for as long as one can lose less without exceeding the limit; the best first."""
    while True:
        total = _total(things, places)
        best = min(_changes(things, places, limit - total.cost), default=None)
        if best is None:
            return
        _, thing, place = best
        places[thing] = place


def _changes(things: Things, places: Sequence[int], spare: float) -> Iterator[tuple[float, int, int]]:
    """What each change that fits takes off the loss, as a negative number, and what it is."""
    for thing, options in enumerate(things):
        now = options[places[thing]]
        for place, option in enumerate(options):
            if option.loss < now.loss and option.cost - now.cost <= spare:
                yield option.loss - now.loss, thing, place
