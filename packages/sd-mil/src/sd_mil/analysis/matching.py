"""Which operation of one program is which of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from sd_mil.ir.program import Operation, Program

#: Where fewer of the shorter program's names are found in the other, names mean nothing.
_SHARED_NAMES = 0.5
#: How many operations are aligned by structure: the time grows with their square.
_ALIGNED = 4000


def key(operation: Operation) -> str:
    """What stands for an operation: its first output."""
    return operation.outputs[0].name


def computed(program: Program) -> list[Operation]:
    """The operations at the top of the default function that compute something."""
    return [one for one in program.main.body.operations if one.type != "const" and one.outputs]


def matched(a: Program, b: Program) -> dict[str, str]:
    """Keys of operations in ``a``, and of those in ``b`` that should give the same.

    By the names of their outputs, where both programs use the same names; else by the longest common run of
    types and shapes.
    """
    left, right = computed(a), computed(b)
    named = _by_name(left, right)
    if len(named) >= _SHARED_NAMES * min(len(left), len(right)):
        return named
    return _by_structure(left[:_ALIGNED], right[:_ALIGNED])


def _by_name(left: Sequence[Operation], right: Sequence[Operation]) -> dict[str, str]:
    others = {key(one): one for one in right}
    return {
        key(one): key(one) for one in left if key(one) in others and _shapes(one) == _shapes(others[key(one)])
    }


def _by_structure(left: Sequence[Operation], right: Sequence[Operation]) -> dict[str, str]:
    first, second = ([(one.type, _shapes(one)) for one in side] for side in (left, right))
    if Counter(first) == Counter(second) and len(left) == len(right) and first == second:
        return {key(one): key(other) for one, other in zip(left, right, strict=True)}
    blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return {
        key(left[block.a + step]): key(right[block.b + step])
        for block in blocks
        for step in range(block.size)
    }


def _shapes(operation: Operation) -> tuple[tuple[int | None, ...], ...]:
    return tuple(variable.type.shape for variable in operation.outputs)
