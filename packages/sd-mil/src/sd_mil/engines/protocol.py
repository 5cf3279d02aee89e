"""The protocol between a model and what executes it, and the choice of an engine by name."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy.typing as npt

from sd_mil.errors import (
    FAILURES,
    EngineError,
    MissingEngineError,
    PackageError,
    SdMilError,
    load_error,
)
from sd_mil.ir.program import Program

EngineName: TypeAlias = Literal["portable", "reference"]
Precision: TypeAlias = Literal["fp32", "bf16"]
Rounding: TypeAlias = Literal["fp16"]

#: Arrays by port name.
Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

#: State by input name; a run that succeeds replaces the arrays.
MutableArrays: TypeAlias = MutableMapping[str, npt.NDArray[Any]]


class CompiledProgram(Protocol):
    """A program made ready to run. Without ``state`` the same inputs give the same outputs, in any thread."""

    @property
    def arithmetic(self) -> str:
        """Engine, library version, precision and rounding, for reports."""
        ...

    def run(self, inputs: Arrays, state: MutableArrays | None = None) -> dict[str, npt.NDArray[Any]]:
        """All outputs by name, from inputs that fit the ports; the caller checks and casts.

        ``state`` is given if and only if the function has states; its arrays are replaced after success.
        Two runs at once must not share one.
        """
        ...


def compile_program(
    program: Program,
    *,
    engine: EngineName,
    precision: Precision,
    rounding: Rounding | None,
    function: str | None = None,
) -> CompiledProgram:
    """Hand one function (the default one) to the engine of that name. Engines are imported only here.

    Raises:
        EngineError: an unknown engine, precision, rounding or function, or a combination that the engine
            has not.
        MissingEngineError: the engine's library is not installed.
        UnsupportedOpError: the program holds an operation that the engine does not know.
    """
    _check_choice("engine", engine, get_args(EngineName))
    _check_choice("precision", precision, get_args(Precision))
    if rounding is not None:
        _check_choice("rounding", rounding, get_args(Rounding))
    if function is not None:
        program = _starting_at(program, function)
    if engine == "reference":
        return _compile_reference(program, precision, rounding)
    if rounding is not None:
        raise EngineError(f"expected no rounding for the portable engine, got {rounding!r}; use 'reference'")
    try:
        return _compile_portable(program, precision)
    except ImportError as error:
        cause = error.__cause__ if isinstance(error, MissingEngineError) else error
        if cause is None or isinstance(cause, ModuleNotFoundError):
            raise
        raise load_error("OpenVINO", cause) from error
    except FAILURES as error:
        if isinstance(error, SdMilError):
            raise
        raise PackageError(f"expected a program that can be compiled, got: {error}") from error


def _starting_at(program: Program, function: str) -> Program:
    _check_choice("function", function, tuple(program.functions))
    return replace(program, default_function=function)


def _compile_reference(program: Program, precision: Precision, rounding: Rounding | None) -> CompiledProgram:
    from sd_mil.engines import reference

    if precision != "fp32":
        raise EngineError(
            f"expected precision='fp32' for the reference engine, got {precision!r}; use engine='portable'"
        )
    return reference.compile_program(program, rounding=rounding)


def _compile_portable(program: Program, precision: Precision) -> CompiledProgram:
    from sd_mil.engines import openvino as portable

    return portable.compile_program(program, precision=precision)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise EngineError(f"expected {name} to be one of {', '.join(map(repr, choices))}, got {value!r}")
