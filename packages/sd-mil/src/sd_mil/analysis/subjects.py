"""A program under analysis: from what the caller names to a program and the arrays that it takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from sd_mil.engines.protocol import Engine, ProgramEngine
from sd_mil.engines.reference.engine import Reference
from sd_mil.errors import UnsupportedModelError
from sd_mil.format import read_model
from sd_mil.ir.dtypes import NUMPY_DTYPES
from sd_mil.ir.ports import Description, Port
from sd_mil.ir.program import Package, Program
from sd_mil.predict.classifier import without_classifier
from sd_mil.predict.features import check_names, taken
from sd_mil.predict.model import MLModel
from sd_mil.predict.running import described
from sd_mil.predict.state import State

#: A path, what was read from it, or a model with its engine, precision and rounding.
Analysable: TypeAlias = "str | os.PathLike[str] | Package | MLModel"


@dataclass(frozen=True, slots=True)
class Subject:
    """A program, its ports, and how it is to be executed."""

    program: Program
    description: Description
    engine: ProgramEngine

    def arrays(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What the program takes for what the caller gives, as ``predict`` does it.

        Raises:
            PredictionError: a name, shape or dtype does not fit.
        """
        ports = self.description.inputs
        check_names(inputs, ports)
        types = {variable.name: variable.type for variable in self.program.main.inputs}
        return {port.name: _taken(inputs, port, types[port.name]) for port in ports}

    def state(self, given: State | None) -> dict[str, Any] | None:
        """The arrays of the states, zero unless they are given; copies, so that nothing changes."""
        ports = self.description.states
        if not ports:
            return None
        arrays = (State(ports) if given is None else given).arrays
        return {name: array.copy() for name, array in arrays.items()}


def _taken(inputs: Mapping[str, Any], port: Port, declared: Any) -> Any:
    return taken(inputs, port, declared.shape, NUMPY_DTYPES[declared.dtype].name)


def subject(model: Analysable, function: str | None = None) -> Subject:
    """Open a model; a path or package is executed by the reference engine, exactly.

    Raises:
        UnsupportedModelError: a pipeline; its models have to be analysed one by one.
        EngineError: the program has no such function.
    """
    if isinstance(model, MLModel):
        return _chosen(model.package, _program_engine(model.engine), function or model.function_name)
    package = model if isinstance(model, Package) else read_model(model)
    return _chosen(package, Reference(), function)


def _chosen(package: object, engine: ProgramEngine, function: str | None) -> Subject:
    if not isinstance(package, Package):
        raise UnsupportedModelError("expected one ML Program, got a pipeline; analyse its models one by one")
    name, description = described(package, function)
    program, _ = without_classifier(replace(package.program, default_function=name))
    return Subject(program, description, engine)


def _program_engine(engine: Engine) -> ProgramEngine:
    if isinstance(engine, ProgramEngine):
        return engine
    raise UnsupportedModelError(f"expected an engine that executes programs, got {engine.name}; use portable")
