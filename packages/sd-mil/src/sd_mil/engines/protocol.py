"""What an engine is, and what it makes of a program or a model."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy.typing as npt

from sd_mil.errors import EngineError
from sd_mil.ir.program import Package, Pipeline, Program

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


@runtime_checkable
class ProgramEngine(Protocol):
    """Executes programs: tensors in, tensors out. Images, labels and pipelines are not its task."""

    @property
    def name(self) -> str:
        """As the command line and messages call it."""
        ...

    def compile(self, program: Program, function: str | None = None) -> CompiledProgram:
        """One function of the program, by default its default one, ready to run.

        Raises:
            EngineError: no such function, or the machine lacks what the engine needs.
            MissingEngineError: the engine's library is not installed.
            UnsupportedOpError: the program holds an operation that the engine does not know.
            PackageError: the program contradicts itself.
        """
        ...


class OpenedModel(Protocol):
    """A whole model made ready to predict."""

    @property
    def arithmetic(self) -> str:
        """Engine and library version, for reports."""
        ...

    def predict(self, data: Mapping[str, Any], state: Any | None) -> dict[str, Any]:
        """Outputs by name, from all inputs by name, in the forms that the model's ports have."""
        ...

    def make_state(self) -> Any:
        """A new state of a stateful model."""
        ...


@runtime_checkable
class ModelEngine(Protocol):
    """Executes models as they are on the disk, with everything that their descriptions say: Core ML."""

    @property
    def name(self) -> str:
        """As the command line and messages call it."""
        ...

    def open(self, model: Package | Pipeline, function: str | None = None) -> OpenedModel:
        """The model at ``model.path``, ready to predict.

        Raises:
            EngineError: the machine lacks what the engine needs, or the engine refuses the model.
        """
        ...


Engine: TypeAlias = ProgramEngine | ModelEngine


def starting_at(program: Program, function: str | None) -> Program:
    """The program with ``function``, where one is named, as its default one.

    Raises:
        EngineError: there is no such function.
    """
    if function is None:
        return program
    check_choice("function", function, tuple(program.functions))
    return replace(program, default_function=function)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Check a value that an engine is given.

    Raises:
        EngineError: it is none of the choices.
    """
    if value not in choices:
        raise EngineError(f"expected {name} to be one of {', '.join(map(repr, choices))}, got {value!r}")
