"""The values of a program, one operation after the other, from any engine that executes programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sd_mil.analysis.matching import computed, key
from sd_mil.analysis.subjects import Subject
from sd_mil.engines.reference import Event
from sd_mil.engines.reference.engine import Reference
from sd_mil.ir.program import Operation, TensorType
from sd_mil.rewriting.outputs import returning

#: Values that an engine is asked for at once: 256 MiB of fp32, so that memory stays bounded.
_BATCH_ELEMENTS = 1 << 26


def events(
    subject: Subject, arrays: Mapping[str, Any], state: Mapping[str, Any] | None, wanted: set[str]
) -> Iterator[Event]:
    """Execute the program, and give every operation with what it computed.

    The reference engine gives each operation's arguments too and releases values as it goes. The portable
    engine computes ``wanted`` values as if they were outputs, in batches, each compiled anew: what it then
    fuses is less than in the whole program.
    """
    if isinstance(subject.engine, Reference):
        yield from subject.engine.compile(subject.program).walk(dict(arrays), state)
        return
    chosen = [one for one in computed(subject.program) if key(one) in wanted and _all_tensors(one)]
    for batch in _batches(chosen):
        yield from _from_outputs(subject, arrays, state, batch)


def _from_outputs(
    subject: Subject, arrays: Mapping[str, Any], state: Mapping[str, Any] | None, batch: Sequence[Operation]
) -> Iterator[Event]:
    names = tuple(variable.name for operation in batch for variable in operation.outputs)
    compiled = subject.engine.compile(returning(subject.program, names))
    results = compiled.run(dict(arrays), None if state is None else dict(state))
    for operation in batch:
        yield Event(operation, {}, tuple(results[variable.name] for variable in operation.outputs))


def _batches(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    batch: list[Operation] = []
    elements = 0
    for operation in operations:
        size = sum(_elements(variable.type.shape) for variable in operation.outputs)
        if batch and elements + size > _BATCH_ELEMENTS:
            yield batch
            batch, elements = [], 0
        batch.append(operation)
        elements += size
    if batch:
        yield batch


def _elements(shape: tuple[int | None, ...]) -> int:
    return math.prod(size or 1 for size in shape)


def _all_tensors(operation: Operation) -> bool:
    constexpr = operation.type.startswith("constexpr_")
    return not constexpr and all(isinstance(variable.type, TensorType) for variable in operation.outputs)
