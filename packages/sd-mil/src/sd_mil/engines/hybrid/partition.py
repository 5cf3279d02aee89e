"""Which operations the backend runs and which numpy has to, in as few segments as possible."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sd_mil.constexpr import is_compressed
from sd_mil.ir.program import Operation, StateType, ValueType
from sd_mil.ir.uses import names_used


@dataclass(frozen=True, slots=True)
class Segment:
    """Operations in order that one engine runs without the other."""

    native: bool
    operations: tuple[Operation, ...]


def is_constant(operation: Operation) -> bool:
    """Whether the operation stands for a constant: it belongs to whatever uses it."""
    return operation.type == "const" or is_compressed(operation.type)


def partition(
    operations: Sequence[Operation], in_numpy: Collection[int], types: Mapping[str, ValueType]
) -> list[Segment]:
    """The operations, constants left out, in segments that alternate between the engines.

    Each operation goes into the earliest segment in which everything that it uses is there; starting with the
    other engine may save a segment. Operations on a state keep their order.
    """
    computed = [
        (position not in in_numpy, operation)
        for position, operation in enumerate(operations)
        if not is_constant(operation)
    ]
    starts = [native for native in (True, False) if any(one == native for one, _ in computed)]
    return min((_segments(computed, types, start) for start in starts), key=len, default=[])


def _segments(
    computed: list[tuple[bool, Operation]], types: Mapping[str, ValueType], first: bool
) -> list[Segment]:
    levels: dict[str, int] = {}
    members: dict[int, list[Operation]] = {}
    for native, operation in computed:
        used = names_used(operation)
        level = int(native != first)
        for name in used & levels.keys():
            level = max(level, levels[name] + (levels[name] - level) % 2)
        members.setdefault(level, []).append(operation)
        levels.update({variable.name: level for variable in operation.outputs})
        levels.update({name: level for name in used if isinstance(types.get(name), StateType)})
    return [Segment((level % 2 == 0) == first, tuple(members[level])) for level in sorted(members)]
