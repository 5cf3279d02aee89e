"""The first operation after which two programs, engines or roundings part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sd_mil.analysis.matching import key, matched
from sd_mil.analysis.measures import decibels, fidelity, largest_error
from sd_mil.analysis.pairing import renamed
from sd_mil.analysis.subjects import Analysable, Subject, subject
from sd_mil.analysis.walking import events
from sd_mil.engines.reference import Event
from sd_mil.errors import printable
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.program import Constant, Reference
from sd_mil.predict.state import State


@dataclass(frozen=True, slots=True)
class ArgumentFidelity:
    """How close a parameter's value is on the two sides: ``psnr`` is None where it was not compared."""

    parameter: str
    value: str
    psnr: float | None

    def __str__(self) -> str:
        """``weight ('w'): 12.0 dB``."""
        return f"{printable(self.parameter)} ({self.value!r}): {decibels(self.psnr)}"


@dataclass(frozen=True, slots=True)
class Divergence:
    """An operation whose results are further apart than the threshold.

    Where its arguments are close, the operation itself is the culprit; where one argument is far off (a
    weight, say), that argument is. ``position`` counts the operations that were compared before it.
    """

    operation: str
    name: str
    output: str
    position: int
    psnr: float
    max_error: float
    arguments: tuple[ArgumentFidelity, ...]

    def __str__(self) -> str:
        """The operation, and a line for each argument."""
        heading = (
            f"{printable(self.operation)} {self.output!r}: {decibels(self.psnr)}, "
            f"largest error {self.max_error:.3g}, after {self.position} operations that agree"
        )
        return "\n".join([heading, *(f"  {one}" for one in self.arguments)])


@dataclass(frozen=True, slots=True)
class DivergenceReport:
    """The first divergence, if there is one; ``compared`` operations were looked at."""

    first: Divergence | None
    compared: int
    unmatched: int
    threshold_db: float
    lowest: float

    def __str__(self) -> str:
        """The verdict."""
        without = f" ({self.unmatched} operations have no counterpart)" if self.unmatched else ""
        if not self.compared:
            return f"nothing to compare: none of {self.unmatched} operations has a counterpart"
        if self.first is None:
            return (
                f"no divergence: {self.compared} operations agree to {self.threshold_db:g} dB or better, "
                f"the worst to {decibels(self.lowest)}{without}"
            )
        return f"first divergence below {self.threshold_db:g} dB{without}: {self.first}"


def first_divergence(
    a: Analysable,
    b: Analysable,
    inputs: Mapping[str, Any],
    *,
    threshold_db: float = 40.0,
    state: State | None = None,
    function: str | None = None,
) -> DivergenceReport:
    """Walk two programs side by side, and name the first operation whose results part.

    ``a`` is the reference. Paths are executed by the reference engine; a :class:`sd_mil.MLModel` brings its
    engine, precision and rounding, so that one program can be held against itself on another engine, or with
    fp16 rounding. Operations are matched by the names of their outputs, or by their order, types and shapes
    where the names differ. Memory holds the values that are still needed, not all.

    An operation that cancels (a difference of nearly equal values) makes less of its arguments' likeness:
    look at the arguments before calling it the culprit.

    Raises:
        PackageError: a model is malformed, or an operation fails.
        PredictionError: the inputs do not fit the ports.
    """
    left, right = subject(a, function), subject(b, function)
    pairs = matched(left.program, right.program)
    halves = left.engine.name != right.engine.name
    walk = _Walk(threshold_db, halves, {}, [])
    total = 0
    others = _Buffered(_events(right, inputs, state, set(pairs.values())), set(pairs.values()))
    for event in _events(left, inputs, state, set(pairs)):
        total += 1
        counterpart = pairs.get(key(event.operation)) if event.operation.outputs else None
        other = others.find(counterpart) if counterpart is not None else None
        if other is not None and (found := walk.compared(event, other)) is not None:
            return walk.report(found, total)
    return walk.report(None, total)


def _events(
    opened: Subject, inputs: Mapping[str, Any], state: State | None, wanted: set[str]
) -> Iterator[Event]:
    names = [port.name for port in opened.description.inputs]
    own = set(inputs) <= set(names) or len(inputs) != len(names)
    arrays = opened.arrays(inputs if own else renamed(inputs, names))
    return events(opened, arrays, opened.state(state), wanted)


@dataclass(slots=True)
class _Buffered:
    """The other side's events, held only where they come before they are asked for."""

    source: Iterator[Event]
    wanted: set[str]
    held: dict[str, Event] | None = None

    def find(self, name: str) -> Event | None:
        held = self.held = {} if self.held is None else self.held
        self.wanted.discard(name)
        if name in held:
            return held.pop(name)
        for event in self.source:
            found = key(event.operation) if event.operation.outputs else ""
            if found == name:
                return event
            if found in self.wanted:
                held[found] = event
        return None


@dataclass(slots=True)
class _Walk:
    """What was compared so far: numbers only, no values."""

    threshold_db: float
    halves: bool
    known: dict[str, float]
    levels: list[float]

    def compared(self, event: Event, other: Event) -> Divergence | None:
        worst, error, output = float("inf"), 0.0, key(event.operation)
        pairs = zip(event.operation.outputs, event.results, other.results, strict=False)
        for variable, expected, got in pairs:
            expected, got = (self._declared(one, variable.type.dtype) for one in (expected, got))
            level = self.known[variable.name] = fidelity(expected, got)
            if level < worst:
                worst, error, output = level, largest_error(expected, got), variable.name
        if worst < self.threshold_db:
            return self._divergence(event, other, output, worst, error)
        self.levels.append(worst)
        return None

    def _declared(self, value: Any, dtype: str) -> Any:
        """Both sides in the declared dtype where the portable engine, which rounds its outputs, is one."""
        if not self.halves or not isinstance(value, np.ndarray) or dtype != "fp16":
            return value
        with np.errstate(over="ignore"):
            return value.astype(NUMPY_DTYPES[dtype])

    def _divergence(self, event: Event, other: Event, output: str, level: float, error: float) -> Divergence:
        operation = event.operation
        return Divergence(
            operation.type,
            operation.name,
            output,
            len(self.levels),
            level,
            error,
            tuple(self._arguments(event, other)),
        )

    def _arguments(self, event: Event, other: Event) -> Iterator[ArgumentFidelity]:
        for parameter, given in event.operation.inputs.items():
            for place, argument in enumerate(given):
                name = argument.name if isinstance(argument, Reference) else "constant"
                level = self.known.get(name)
                if level is None:
                    level = _direct(event, other, parameter, place)
                if isinstance(argument, Constant) and level is not None and level > 0 and np.isinf(level):
                    continue
                yield ArgumentFidelity(parameter, name, level)

    def report(self, first: Divergence | None, total: int) -> DivergenceReport:
        compared = len(self.levels) + (first is not None)
        lowest = min(self.levels, default=float("inf"))
        return DivergenceReport(first, compared, total - compared, self.threshold_db, lowest)


def _direct(event: Event, other: Event, parameter: str, place: int) -> float | None:
    """The arguments themselves, where both sides have them: constants, and values without a counterpart."""
    if parameter not in event.arguments or parameter not in other.arguments:
        return None
    expected, got = event.arguments[parameter], other.arguments[parameter]
    if isinstance(expected, tuple) and isinstance(got, tuple):
        if place >= min(len(expected), len(got)):
            return None
        expected, got = expected[place], got[place]
    return fidelity(expected, got)
