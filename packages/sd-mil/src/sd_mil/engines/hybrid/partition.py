"""Which operations OpenVINO runs and which numpy has to, in as few segments as possible."""

from __future__ import annotations

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from openvino import Output

from sd_mil.engines.openvino.compression import decompress, is_compressed
from sd_mil.engines.openvino.registry import find_translator
from sd_mil.engines.openvino.scope import Scope
from sd_mil.engines.openvino.scores import fused_scores
from sd_mil.engines.openvino.translation import parameter, translate_operation
from sd_mil.errors import UnsupportedModelError
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.program import (
    Argument,
    Constant,
    Operation,
    Reference,
    StateType,
    TensorType,
    UnrankedType,
    ValueType,
    Variable,
)
from sd_mil.ir.uses import names_used


@dataclass(frozen=True, slots=True)
class Segment:
    """Operations in order that one engine runs without the other."""

    native: bool
    operations: tuple[Operation, ...]


def is_constant(operation: Operation) -> bool:
    """Whether the operation stands for a constant: it belongs to whatever uses it."""
    return operation.type == "const" or is_compressed(operation.type)


def is_translated(operation: Operation, types: Mapping[str, ValueType]) -> bool:
    """Whether operations of this type, between values of these types, can have a translation at all."""
    if operation.blocks or find_translator(operation.type) is None:
        return False
    kinds = [types[name] for name in names_used(operation) if name in types]
    kinds += [variable.type for variable in operation.outputs]
    return all(_is_ranked(kind) for kind in kinds)


def _is_ranked(kind: ValueType) -> bool:
    return isinstance(kind, TensorType) and not isinstance(kind, UnrankedType)


def refused(
    inputs: Iterable[Variable], operations: Sequence[Operation], types: Mapping[str, ValueType]
) -> frozenset[int]:
    """The positions of operations that OpenVINO does not run, found by translating all of them.

    What a refused operation computes counts as an input for those after it.
    """
    scope, found = _Trial(fused_scores(operations)), set()
    for variable in inputs:
        _declare(variable, scope)
    for position, operation in enumerate(operations):
        if is_compressed(operation.type):
            scope.define_compressed(operation)
            continue
        if operation.type == "const" or is_translated(operation, types):
            try:
                translate_operation(operation, scope)
                continue
            except UnsupportedModelError:
                pass
        found.add(position)
        for variable in operation.outputs:
            _declare(variable, scope)
    return frozenset(found)


class _Trial(Scope):
    """A scope in which a compressed weight counts as an input until its values are asked for."""

    def __init__(self, fused: frozenset[str]) -> None:
        """Start with nothing defined."""
        super().__init__(fused)
        self._compressed: dict[str, Operation] = {}

    def define_compressed(self, operation: Operation) -> None:
        """Bind the outputs of a ``constexpr_*`` operation without decoding it."""
        self._compressed.update({variable.name: operation for variable in operation.outputs})

    def constant(self, argument: Argument) -> Constant | None:
        """As in any scope; decodes."""
        if isinstance(argument, Reference) and argument.name in self._compressed:
            return decompress(self._compressed[argument.name], self)[argument.name]
        return super().constant(argument)

    def output(self, argument: Argument) -> Output:
        """As in any scope; does not decode."""
        if isinstance(argument, Reference) and argument.name in self._compressed:
            outputs = self._compressed[argument.name].outputs
            return parameter(next(one for one in outputs if one.name == argument.name)).output(0)
        return super().output(argument)


def _declare(variable: Variable, scope: Scope) -> None:
    """Lists, states and text are left out: only operations that are refused anyway use them."""
    if _is_ranked(variable.type) and variable.type.dtype in NUMPY_DTYPES:
        scope.define(variable.name, parameter(variable).output(0))


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
