"""OpenVINO as the backend of programs that it does not run alone."""

from __future__ import annotations

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from openvino import Output

from sd_mil.constexpr import decode, is_compressed
from sd_mil.engines.openvino.compiled import CompiledProgram, compile_program
from sd_mil.engines.openvino.dtypes import computed_type
from sd_mil.engines.openvino.registry import find_translator
from sd_mil.engines.openvino.scope import Scope
from sd_mil.engines.openvino.scores import fused_scores
from sd_mil.engines.openvino.translation import parameter, refuse_unknown, translate_operation
from sd_mil.engines.protocol import Precision
from sd_mil.errors import UnsupportedModelError
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.program import (
    Argument,
    Constant,
    Operation,
    Program,
    Reference,
    TensorType,
    UnrankedType,
    ValueType,
    Variable,
)
from sd_mil.ir.uses import names_used


@dataclass(frozen=True, slots=True)
class OpenVINOBackend:
    """A :class:`sd_mil.engines.hybrid.Backend`."""

    precision: Precision

    def compile(self, program: Program) -> CompiledProgram:
        """See :func:`sd_mil.engines.openvino.compiled.compile_program`."""
        return compile_program(program, precision=self.precision)

    def refuse_unknown(self, program: Program) -> None:
        """See :func:`sd_mil.engines.openvino.translation.refuse_unknown`."""
        refuse_unknown(program)

    def computed_type(self, kind: TensorType, *, where: str) -> TensorType:
        """See :func:`sd_mil.engines.openvino.dtypes.computed_type`."""
        return computed_type(kind, where=where)

    def refused(
        self, inputs: Iterable[Variable], operations: Sequence[Operation], types: Mapping[str, ValueType]
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
            if operation.type == "const" or _is_translated(operation, types):
                try:
                    translate_operation(operation, scope)
                    continue
                except UnsupportedModelError:
                    pass
            found.add(position)
            for variable in operation.outputs:
                _declare(variable, scope)
        return frozenset(found)


def _is_translated(operation: Operation, types: Mapping[str, ValueType]) -> bool:
    """Whether operations of this type, between values of these types, can have a translation at all."""
    if operation.blocks or find_translator(operation.type) is None:
        return False
    kinds = [types[name] for name in names_used(operation) if name in types]
    kinds += [variable.type for variable in operation.outputs]
    return all(_is_ranked(kind) for kind in kinds)


def _is_ranked(kind: ValueType) -> bool:
    return isinstance(kind, TensorType) and not isinstance(kind, UnrankedType)


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
            return decode(self._compressed[argument.name], self.constant)[argument.name]
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
