"""What runs the segments of a program that it does not run alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from sd_mil.engines.protocol import CompiledProgram
from sd_mil.ir.program import Operation, Program, TensorType, ValueType, Variable


class Backend(Protocol):
    """Compiles what it can, and says beforehand what it cannot."""

    def compile(self, program: Program) -> CompiledProgram:
        """A segment, without control flow, lists and states.

        Raises:
            UnsupportedOpError: it cannot be compiled after all; numpy runs it then.
        """
        ...

    def refused(
        self, inputs: Iterable[Variable], operations: Sequence[Operation], types: Mapping[str, ValueType]
    ) -> frozenset[int]:
        """The positions of the operations that it does not run; ``types`` has those of values by name."""
        ...

    def refuse_unknown(self, program: Program) -> None:
        """Check that every operation is known to the backend, or to the reference engine.

        Raises:
            UnsupportedOpError: one is not.
        """
        ...

    def computed_type(self, kind: TensorType, *, where: str) -> TensorType:
        """The type in which it computes values of a type, so that nothing is rounded between segments."""
        ...
