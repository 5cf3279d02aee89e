"""The reference engine as an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sd_mil.engines.protocol import Rounding, check_choice, starting_at
from sd_mil.engines.reference.interpreter import ReferenceProgram, compile_program
from sd_mil.ir.program import Program


@dataclass(frozen=True, slots=True)
class Reference:
    """Plain numpy, slow and exact, in fp32.

    ``rounding="fp16"`` rounds every value that the program declares fp16, as fp16 hardware would: differences
    and overflows then show.

    Raises:
        EngineError: another rounding or precision.
    """

    rounding: Rounding | None = None
    precision: Literal["fp32"] = "fp32"

    def __post_init__(self) -> None:
        """Check both."""
        check_choice("precision", self.precision, ("fp32",))
        if self.rounding is not None:
            check_choice("rounding", self.rounding, get_args(Rounding))

    @property
    def name(self) -> str:
        """``reference``."""
        return "reference"

    def compile(self, program: Program, function: str | None = None) -> ReferenceProgram:
        """See :class:`sd_mil.engines.ProgramEngine`."""
        return compile_program(starting_at(program, function), rounding=self.rounding)
