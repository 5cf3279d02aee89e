"""What stands behind ``predict``: one program, or the models of a pipeline one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from sd_mil.engines.protocol import CompiledProgram, Engine, ModelEngine, OpenedModel, ProgramEngine
from sd_mil.errors import EngineError, PackageError, PredictionError, SdMilError, UnsupportedModelError
from sd_mil.ir.ports import Description, Port
from sd_mil.ir.program import Package, Pipeline, Suppression, ValueType
from sd_mil.predict.classifier import Classifier, without_classifier
from sd_mil.predict.features import check_kinds, check_names, default, given, taken
from sd_mil.predict.state import State
from sd_mil.predict.suppression import suppress, suppression_ports

Values = Mapping[str, Any]


class Runner(Protocol):
    """A model that was made ready to run."""

    @property
    def description(self) -> Description:
        """Its ports."""
        ...

    @property
    def arithmetic(self) -> str:
        """What its numbers are computed with."""
        ...

    def run(self, data: Values, state: Any | None) -> dict[str, Any]:
        """All outputs by name."""
        ...

    def make_state(self) -> Any:
        """A new state, all zero."""
        ...


@dataclass(frozen=True, slots=True)
class ProgramRunner:
    """One function of a program."""

    description: Description
    types: Mapping[str, ValueType]
    compiled: CompiledProgram
    classifier: Classifier | None

    @property
    def arithmetic(self) -> str:
        """Engine, library version, precision and rounding."""
        return self.compiled.arithmetic

    def run(self, data: Values, state: State | None) -> dict[str, Any]:
        """All outputs by name.

        Raises:
            PredictionError: what is given does not fit the ports.
            PackageError: the program computes something else than it declares.
        """
        description = self.description
        check_names(data, description.inputs)
        _check_state(state, description.states)
        arrays = {port.name: self._taken(data, port) for port in description.inputs}
        with nullcontext() if state is None else state.lock:
            results = self.compiled.run(arrays, None if state is None else state.arrays)
        labelled = {} if self.classifier is None else self.classifier.results(results)
        return {
            port.name: labelled[port.name] if port.name in labelled else given(results[port.name], port)
            for port in description.outputs
        }

    def make_state(self) -> State:
        """A new state, all zero."""
        return State(self.description.states)

    def _taken(self, data: Values, port: Port) -> Any:
        declared = self.types[port.name]
        return taken(data, port, declared.shape, _numpy_name(declared.dtype))


def _numpy_name(dtype: str) -> str:
    return dtype.replace("fp", "float")


def _check_state(state: State | None, ports: tuple[Port, ...]) -> None:
    names = {port.name for port in ports}
    if (set() if state is None else set(state.arrays)) != names:
        got = "none" if state is None else sorted(state.arrays)
        raise PredictionError(f"expected a state with {sorted(names)}, got {got}; make_state() makes it")


@dataclass(frozen=True, slots=True)
class ModelRunner:
    """A whole model that an engine has opened; it checks and converts what it is given itself."""

    description: Description
    opened: OpenedModel

    @property
    def arithmetic(self) -> str:
        """What the engine says of itself."""
        return self.opened.arithmetic

    def run(self, data: Values, state: Any | None) -> dict[str, Any]:
        """All outputs by name, in the order of the ports.

        Raises:
            PredictionError: missing or unexpected inputs, or a state where none belongs.
            EngineError: the engine fails.
        """
        check_names(data, self.description.inputs)
        if (state is None) == bool(self.description.states):
            raise PredictionError(
                "expected a state if and only if the model has states; make_state() makes it"
            )
        results = self.opened.predict(data, state)
        if missing := [port.name for port in self.description.outputs if port.name not in results]:
            raise PredictionError(f"expected the engine to compute {missing}, got {sorted(results)}")
        return {port.name: results[port.name] for port in self.description.outputs}

    def make_state(self) -> Any:
        """The engine's own."""
        return self.opened.make_state()


def described(package: Package, function: str | None) -> tuple[str, Description]:
    """The name of a function, the default one if none is named, and its description.

    Raises:
        EngineError: no such function.
    """
    name = function or package.program.default_function
    descriptions = {package.program.default_function: package.description, **package.descriptions}
    if name not in descriptions:
        raise EngineError(f"expected one of the functions {sorted(descriptions)}, got {name!r}")
    return name, descriptions[name]


def program_runner(package: Package, engine: ProgramEngine, function: str | None = None) -> ProgramRunner:
    """Compile a function of the package's program, the default one if none is named.

    Raises:
        EngineError: no such function.
        UnsupportedModelError: a port or operation that is not run.
    """
    name, description = described(package, function)
    program, classifier = without_classifier(replace(package.program, default_function=name))
    labelled = () if classifier is None else classifier.outputs
    numbers = ("array", "image", "int64", "double")
    check_kinds(description.inputs, numbers, "input")
    check_kinds((port for port in description.outputs if port.name not in labelled), numbers, "output")
    return ProgramRunner(
        description=description,
        types={variable.name: variable.type for variable in program.main.inputs},
        compiled=engine.compile(program, name),
        classifier=classifier,
    )


@dataclass(frozen=True, slots=True)
class SuppressionRunner:
    """The end of an object detector."""

    model: Suppression

    @property
    def description(self) -> Description:
        """Its ports, with the thresholds that it takes."""
        return suppression_ports(self.model)

    @property
    def arithmetic(self) -> str:
        """What its numbers are computed with."""
        return f"nonMaximumSuppression, numpy {np.__version__}, fp64"

    def run(self, data: Values, state: State | None) -> dict[str, Any]:
        """All outputs by name."""
        check_names(data, self.description.inputs)
        _check_state(state, ())
        return suppress(self.model, data)

    def make_state(self) -> State:
        """One without anything in it."""
        return State(())


@dataclass(frozen=True, slots=True)
class PipelineRunner:
    """Models that pass values by name.

    ``unused`` are the inputs that no model takes: they are optional, or the pipeline would not run.
    """

    description: Description
    stages: Mapping[str, Runner]
    unused: frozenset[str]

    @property
    def arithmetic(self) -> str:
        """That of each model that differs."""
        return " | ".join(dict.fromkeys(stage.arithmetic for stage in self.stages.values()))

    def run(self, data: Values, state: State | None) -> dict[str, Any]:
        """All outputs by name.

        Raises:
            PredictionError: a model lacks an input, no model takes what is given, or it does not fit.
        """
        check_names(data, self.description.inputs)
        _check_state(state, ())
        if ignored := sorted(self.unused & set(data)):
            raise PredictionError(
                f"expected inputs that a model of the pipeline takes, got {ignored}, which none does"
            )
        ports = self.description.inputs
        values = {port.name: default(port) for port in ports if port.default is not None} | dict(data)
        for name, stage in self.stages.items():
            wanted = (port for port in stage.description.inputs if port.name in values)
            inputs = {port.name: _passed(values[port.name], port) for port in wanted}
            values |= _within(name, partial(stage.run, inputs, None))
        missing = [port.name for port in self.description.outputs if port.name not in values]
        if missing:
            raise PredictionError(f"expected the pipeline to compute {missing}, got {sorted(values)}")
        return {port.name: _passed(values[port.name], port) for port in self.description.outputs}

    def make_state(self) -> State:
        """One without anything in it: pipelines have no states."""
        return State(())


def _passed(value: Any, port: Port) -> Any:
    """Core ML converts between the float types, and between the integer types, of two models."""
    if not isinstance(value, np.ndarray) or port.kind != "array":
        return value
    dtype = np.dtype(port.dtype)
    with np.errstate(over="ignore"):
        return value.astype(dtype, copy=False) if value.dtype.kind == dtype.kind else value


def _within(name: str, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return action()
    except SdMilError as error:
        raise type(error)(f"{name!r} of the pipeline: {error}") from error


def runner(model: Package | Pipeline, engine: Engine, function: str | None = None) -> Runner:
    """Make a model ready to run, whole if the engine takes whole models.

    Raises:
        EngineError: no such function, or the engine refuses the model.
        UnsupportedModelError: a model, port or operation that is not run.
        PackageError: an input of a pipeline that none of its models takes.
    """
    if isinstance(model, Pipeline) and function is not None:
        raise EngineError(f"expected no function for a pipeline, got {function!r}")
    if isinstance(engine, ModelEngine):
        description = described(model, function)[1] if isinstance(model, Package) else model.description
        return ModelRunner(description, engine.open(model, function))
    return _parts(model, engine, function)


def _parts(
    model: Package | Pipeline | Suppression, engine: ProgramEngine, function: str | None = None
) -> Runner:
    if isinstance(model, Package):
        return program_runner(model, engine, function)
    return SuppressionRunner(model) if isinstance(model, Suppression) else _pipeline(model, engine)


def _pipeline(model: Pipeline, engine: ProgramEngine) -> PipelineRunner:
    stages = {name: _stage(name, one, engine) for name, one in model.models.items()}
    read = {port.name for stage in stages.values() for port in stage.description.inputs}
    read |= {port.name for port in model.description.outputs}
    unread = [port for port in model.description.inputs if port.name not in read]
    if required := [port.name for port in unread if not port.optional]:
        raise PackageError(
            f"expected a model of the pipeline to take each of its inputs, got {required}, which none does"
        )
    return PipelineRunner(model.description, stages, frozenset(port.name for port in unread))


def _nested(made: PipelineRunner) -> PipelineRunner:
    """The pipeline as a model of another, with the optional inputs that only its own models describe."""
    known = {port.name for port in made.description.inputs}
    optional: dict[str, Port] = {}
    for stage in made.stages.values():
        optional |= {
            port.name: port for port in stage.description.inputs if port.optional and port.name not in known
        }
        known |= {port.name for port in stage.description.outputs}
    inputs = (*made.description.inputs, *optional.values())
    return replace(made, description=replace(made.description, inputs=inputs))


def _stage(name: str, model: Package | Pipeline | Suppression, engine: ProgramEngine) -> Runner:
    try:
        stage = _parts(model, engine)
    except SdMilError as error:
        raise type(error)(f"{name!r} of the pipeline: {error}") from error
    if stage.description.states:
        raise UnsupportedModelError(f"expected no state in a pipeline, got some in its model {name!r}")
    return _nested(stage) if isinstance(stage, PipelineRunner) else stage
