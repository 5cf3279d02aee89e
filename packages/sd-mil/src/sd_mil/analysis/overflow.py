"""Which operations leave the range of fp16."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sd_mil.analysis.subjects import Analysable, subject
from sd_mil.engines.reference import Event, ListValue, compile_program
from sd_mil.errors import printable
from sd_mil.ir.program import Operation
from sd_mil.predict.state import State

#: From here on a number is rounded to infinity: half a step above the largest finite one, 65504.
_FIRST_INFINITE = 65520.0


@dataclass(frozen=True, slots=True)
class Overflow:
    """An operation whose exact result is too large for fp16.

    ``magnitude`` is the largest absolute value (``inf`` and ``nan`` come from fp32 overflow), ``elements``
    how many are too large, ``dtype`` what the program declares: in fp32, nothing overflows as it stands.
    """

    operation: str
    name: str
    output: str
    dtype: str
    magnitude: float
    elements: int

    def __str__(self) -> str:
        """``matmul 'scores' reaches 81234 (12 elements)``."""
        stands = "" if self.dtype == "fp16" else f"; declared {self.dtype}, so it holds as it stands"
        many = "element" if self.elements == 1 else "elements"
        what = f"{printable(self.operation)} {self.output!r}"
        return f"{what} reaches {self.magnitude:.6g} ({self.elements} {many}{stands})"


@dataclass(frozen=True, slots=True)
class OverflowReport:
    """The operations that overflow, in the order of their execution; the first is where it starts."""

    rows: tuple[Overflow, ...]
    operations: int

    @property
    def first(self) -> Overflow | None:
        """Where it starts."""
        return self.rows[0] if self.rows else None

    def __str__(self) -> str:
        """One line for each."""
        if not self.rows:
            return f"no overflow: the results of {self.operations} operations fit fp16"
        many = f"{len(self.rows)} of {self.operations} operations leave the range of fp16"
        return "\n".join(
            [f"{many}; it starts with {self.rows[0]}", *(f"then {row}" for row in self.rows[1:])]
        )


def overflow(
    model: Analysable, inputs: Mapping[str, Any], *, state: State | None = None, function: str | None = None
) -> OverflowReport:
    """Find the operations whose exact results fp16 cannot hold, those in loops and branches included.

    The program is executed in fp32, so that one overflow does not hide the next. Infinities that an operation
    was given, as masks have them, are not its own. What happens inside an operation (the sum within a
    normalisation, say) is not looked at.

    Raises:
        PackageError: the model is malformed, or an operation fails.
        PredictionError: the inputs do not fit the ports.
    """
    opened = subject(model, function)
    found: dict[str, Overflow] = {}
    seen: set[str] = set()

    def look(event: Event) -> None:
        seen.add(_key(event.operation))
        for row in _overflows(event):
            found[row.output] = _worst(found.get(row.output), row)

    arrays, states = opened.arrays(inputs), opened.state(state)
    compile_program(opened.program).run(arrays, states, observe=look)
    return OverflowReport(tuple(found.values()), len(seen))


def _key(operation: Operation) -> str:
    return ", ".join(variable.name for variable in operation.outputs) or operation.name


def _overflows(event: Event) -> Iterable[Overflow]:
    for variable, value in zip(event.operation.outputs, event.results, strict=True):
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            continue
        sizes = np.abs(value)
        large = ~(sizes < _FIRST_INFINITE)
        if large.any() and (np.isfinite(value[large]).any() or not _given_infinities(event)):
            finite = sizes[large & np.isfinite(value)]
            magnitude = float(finite.max()) if finite.size else float(sizes[large].max())
            yield Overflow(
                event.operation.type,
                event.operation.name,
                variable.name,
                variable.type.dtype,
                magnitude,
                int(large.sum()),
            )


def _given_infinities(event: Event) -> bool:
    return any(
        value.dtype.kind == "f" and not np.isfinite(value).all()
        for given in event.arguments.values()
        for value in _arrays(given)
    )


def _arrays(value: object) -> Iterable[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, ListValue):
        yield from (item for item in value.items if item is not None)
    elif isinstance(value, tuple):
        for one in value:
            yield from _arrays(one)


def _worst(known: Overflow | None, row: Overflow) -> Overflow:
    return row if known is None or not row.magnitude <= known.magnitude else known
