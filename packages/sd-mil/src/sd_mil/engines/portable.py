"""The portable engine: OpenVINO for all that it can run, numpy for what is between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from sd_mil.engines.protocol import CompiledProgram, Precision, check_choice, starting_at
from sd_mil.errors import (
    FAILURES,
    MissingEngineError,
    PackageError,
    SdMilError,
    UnsupportedModelError,
    load_error,
)
from sd_mil.ir.program import Program, StateType


@dataclass(frozen=True, slots=True)
class OpenVINO:
    """Fast, on any processor that OpenVINO runs on.

    ``precision`` is the arithmetic of floats, whatever the program stores: ``"fp32"``, or ``"bf16"`` on
    processors that have it.

    Raises:
        EngineError: another precision.
    """

    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        """Check the precision."""
        check_choice("precision", self.precision, get_args(Precision))

    @property
    def name(self) -> str:
        """``portable``."""
        return "portable"

    def compile(self, program: Program, function: str | None = None) -> CompiledProgram:
        """See :class:`sd_mil.engines.ProgramEngine`."""
        started = starting_at(program, function)
        try:
            return compile_program(started, precision=self.precision)
        except ImportError as error:
            cause = error.__cause__ if isinstance(error, MissingEngineError) else error
            if cause is None or isinstance(cause, ModuleNotFoundError):
                raise
            raise load_error("OpenVINO", cause) from error
        except FAILURES as error:
            if isinstance(error, SdMilError):
                raise
            raise PackageError(f"expected a program that can be compiled, got: {error}") from error


def compile_program(program: Program, *, precision: Precision = "fp32") -> CompiledProgram:
    """Compile the default function of ``program``: with OpenVINO, or in parts where that cannot run it all.

    Raises:
        MissingEngineError: OpenVINO is not installed.
        EngineError: an unknown precision, or bf16 on a processor that has none.
        UnsupportedOpError: an operation that neither OpenVINO nor the reference engine knows.
        PackageError: the program contradicts itself.
    """
    from sd_mil.engines.hybrid import compile_in_parts
    from sd_mil.engines.openvino import compiled
    from sd_mil.rewriting import join_recurrences

    program = join_recurrences(program)
    if not any(isinstance(one.type, StateType) for one in program.main.inputs):
        try:
            return compiled.compile_program(program, precision=precision)
        except UnsupportedModelError:
            pass  # the parts may do
    from sd_mil.engines.openvino.backend import OpenVINOBackend

    return compile_in_parts(program, OpenVINOBackend(precision), name="portable")
