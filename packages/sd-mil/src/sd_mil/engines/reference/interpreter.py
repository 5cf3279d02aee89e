"""Walk a program and compute it, value by value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from sd_mil.constexpr.stored import unpacked
from sd_mil.engines.protocol import Arrays, Rounding
from sd_mil.engines.reference.payload import computed, dense
from sd_mil.engines.reference.plan import BlockPlan, Step, plan
from sd_mil.engines.reference.values import Array, Cell, Value
from sd_mil.errors import PackageError, PredictionError, SdMilError
from sd_mil.ir.limits import check_computed, check_empty
from sd_mil.ir.program import (
    Argument,
    Block,
    Constant,
    Operation,
    Program,
    StateType,
    TensorType,
    UnrankedType,
    Variable,
    where,
)

#: What may stop a computation that is wrong for its inputs.
_FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Event:
    """An operation that was executed: the values of its parameters, and its results."""

    operation: Operation
    arguments: Mapping[str, Any]
    results: tuple[Any, ...]


#: Told of every operation that was executed, in nested blocks too.
Observer: TypeAlias = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class ReferenceProgram:
    """A program planned for numpy."""

    plan: BlockPlan
    rounding: Rounding | None = None

    @property
    def arithmetic(self) -> str:
        """Engine, library version, precision and rounding."""
        rounding = "rounded to fp16 where the program declares fp16" if self.rounding else "no fp16 rounding"
        return f"reference engine, numpy {np.__version__}, fp32, {rounding}; not the Neural Engine"

    def run(
        self,
        inputs: Arrays,
        state: MutableMapping[str, Array] | None = None,
        *,
        observe: Observer | None = None,
    ) -> dict[str, Array]:
        """Compute every output; entries of ``state`` are replaced when the run has succeeded.

        Raises:
            PackageError: an operation fails, or gives another shape than the program declares.
            PredictionError: a state is missing.
        """
        cells = self._cells(state or {})
        block = CompiledBlock(self.plan, self.rounding, observe)
        results = block.run({**inputs, **cells})
        if state is not None:
            state.update({name: cell.value.astype(state[name].dtype) for name, cell in cells.items()})
        return results

    def walk(self, inputs: Arrays, state: Mapping[str, Array] | None = None) -> Iterator[Event]:
        """Each operation when it was executed; ``state`` stays as it is.

        Raises:
            PackageError: an operation fails, or gives another shape than the program declares.
            PredictionError: a state is missing.
        """
        return CompiledBlock(self.plan, self.rounding).walk({**inputs, **self._cells(state or {})})

    def _cells(self, state: Mapping[str, Array]) -> dict[str, Cell]:
        names = [one.name for one in self.plan.inputs if isinstance(one.type, StateType)]
        if missing := [name for name in names if name not in state]:
            raise PredictionError(f"expected state for {names}, got none for {missing}; use make_state()")
        return {name: Cell(state[name]) for name in names}


@dataclass(frozen=True, slots=True)
class CompiledBlock:
    """A block ready to run on the values of its inputs and of the outer scopes that it uses."""

    plan: BlockPlan
    rounding: Rounding | None = None
    observe: Observer | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the values that ``run`` needs."""
        return (*(one.name for one in self.plan.inputs), *self.plan.free)

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name, floats in fp32. States are given as :class:`Cell`, and change in place.

        Raises:
            PackageError: an operation fails, or gives another shape than the program declares.
        """
        return self._executed(self.plan, self._scope(values))

    def walk(self, values: Mapping[str, Any]) -> Iterator[Event]:
        """Each operation of the block when it was executed; only what is needed later is held.

        Raises:
            PackageError: an operation fails, or gives another shape than the program declares.
        """
        scope = self._scope(values)
        for step in self.plan.steps:
            yield self._execute(step, self.plan, scope)

    def _scope(self, values: Mapping[str, Any]) -> dict[str, Value]:
        scope = {one.name: self._brought(values[one.name], one) for one in self.plan.inputs}
        return scope | {name: _widened(values[name]) for name in self.plan.free}

    def _executed(self, block: BlockPlan, scope: dict[str, Value]) -> dict[str, Value]:
        for step in block.steps:
            self._execute(step, block, scope)
        return {name: _value(name, block, scope) for name in block.outputs}

    def _execute(self, step: Step, block: BlockPlan, scope: dict[str, Value]) -> Event:
        with np.errstate(all="ignore"):  # overflow to inf and NaN are results, as on any hardware
            return self._computed(step, block, scope)

    def _computed(self, step: Step, block: BlockPlan, scope: dict[str, Value]) -> Event:
        arguments = {name: _argument(step, name, block, scope) for name in step.arguments}
        nested = tuple(partial(self._nested, one, scope) for one in step.blocks)
        results = _results(step, arguments, nested)
        for variable, result in zip(step.operation.outputs, results, strict=True):
            if isinstance(variable.type, TensorType) and isinstance(result, np.ndarray):
                _check_shape(step.operation, variable, result)
            scope[variable.name] = result if step.op.stored else self._brought(result, variable)
        outputs = tuple(scope[variable.name] for variable in step.operation.outputs)
        event = Event(step.operation, arguments, outputs)
        if self.observe is not None:
            self.observe(event)
        for name in step.releases:
            scope.pop(name, None)
        return event

    def _nested(self, block: BlockPlan, outer: Mapping[str, Value], *arguments: Value) -> tuple[Value, ...]:
        if len(arguments) != len(block.inputs):
            raise PackageError(f"expected a block of {len(arguments)} inputs, got {len(block.inputs)}")
        scope = {name: outer[name] for name in block.free}
        pairs = zip(block.inputs, arguments, strict=True)
        scope |= {variable.name: self._brought(value, variable) for variable, value in pairs}
        results = self._executed(block, scope)
        return tuple(results[name] for name in block.outputs)

    def _brought(self, value: Value, variable: Variable) -> Value:
        """The value in the dtype that its declared type is computed in, rounded where that is asked for."""
        kind = variable.type
        if isinstance(value, Cell):
            value.value = self._array(value.value, kind.dtype)
            return value
        return self._array(value, kind.dtype) if isinstance(value, np.ndarray) else value

    def _array(self, array: Array, dtype: str) -> Array:
        if self.rounding is None or dtype != "fp16":
            return computed(array, dtype)
        with np.errstate(over="ignore"):
            return array.astype(np.float16).astype(np.float32)


def compile_program(program: Program, *, rounding: Rounding | None = None) -> ReferenceProgram:
    """Bind every operation to its implementation.

    Constants are widened where they are used and dropped after, so that memory holds one operation's worth
    of fp32 weights at a time.

    Raises:
        UnsupportedOpError: an operation, parameter or choice that is not known.
        UnsupportedModelError: a value of a dtype that is not computed here.
        PackageError: a required parameter is missing, or has several values.
    """
    return ReferenceProgram(_complete(plan(program.main.body)), rounding)


def compile_block(block: Block, *, rounding: Rounding | None = None) -> CompiledBlock:
    """Bind the operations of a part of a program, nested blocks included.

    What the operations use and do not define themselves has to be given to ``run``, whether the block
    declares it as an input or not.

    Raises:
        UnsupportedOpError: an operation, parameter or choice that is not known.
        UnsupportedModelError: a value of a dtype that is not computed here.
        PackageError: a required parameter is missing, or has several values.
    """
    return CompiledBlock(plan(block), rounding)


def _complete(made: BlockPlan) -> BlockPlan:
    if made.free:
        raise PackageError(f"expected every value to be defined, got uses of {', '.join(made.free)}")
    return made


def _results(step: Step, arguments: Mapping[str, Any], nested: tuple[Any, ...]) -> tuple[Value, ...]:
    operation, function = step.operation, step.op.function
    try:
        _check_sizes(step, arguments)
        result = function(nested, **arguments) if step.blocks else function(**arguments)
    except SdMilError:
        raise
    except _FAILURES as error:
        raise PackageError(f"expected {where(operation)} to be computable, got: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    if len(results) != len(operation.outputs):
        raise PackageError(f"expected {len(results)} outputs of {where(operation)}")
    return tuple(np.asarray(one) if isinstance(one, np.generic | int | float) else one for one in results)


def _check_sizes(step: Step, arguments: Mapping[str, Any]) -> None:
    for variable in step.operation.outputs:
        check_computed(*(1 if size is None else size for size in variable.type.shape))
    for name in step.op.scalars & arguments.keys():
        if np.size(arguments[name]) != 1:
            raise ValueError(f"expected one number for {name!r}, got shape {np.shape(arguments[name])}")
    for value in arguments.values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, np.ndarray):
                check_empty(one.shape)


def _argument(step: Step, name: str, block: BlockPlan, scope: Mapping[str, Value]) -> Any:
    resolve = _stored if step.op.stored else _resolved
    resolved = tuple(resolve(argument, block, scope) for argument in step.arguments[name])
    return resolved if name in step.op.variadic else resolved[0]


def _stored(argument: Argument, block: BlockPlan, scope: Mapping[str, Value]) -> Value:
    if isinstance(argument, Constant):
        return unpacked(argument)
    return scope[argument.name] if argument.name in scope else unpacked(block.constants[argument.name])


def _resolved(argument: Argument, block: BlockPlan, scope: Mapping[str, Value]) -> Value:
    return dense(argument) if isinstance(argument, Constant) else _value(argument.name, block, scope)


def _value(name: str, block: BlockPlan, scope: Mapping[str, Value]) -> Value:
    return _widened(scope[name]) if name in scope else dense(block.constants[name])


def _widened(value: Value) -> Value:
    if isinstance(value, np.ndarray) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _check_shape(operation: Operation, variable: Variable, result: Array) -> None:
    if isinstance(variable.type, UnrankedType):
        return
    declared = variable.type.shape
    fits = len(declared) == result.ndim and all(
        size is None or size == got for size, got in zip(declared, result.shape, strict=True)
    )
    if not fits:
        raise PackageError(
            f"expected shape {list(declared)} from {where(operation)}, got {list(result.shape)}"
        )
