"""Walk a program and compute it, value by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sd_mil.engine import Arrays, Rounding
from sd_mil.errors import PackageError
from sd_mil.program import Argument, Constant, Operation, Program, Reference, TensorType, Variable
from sd_mil.reference.payload import computed, dense
from sd_mil.reference.plan import Step, plan, split_constants, where
from sd_mil.reference.registry import Array


@dataclass(frozen=True, slots=True)
class ReferenceProgram:
    """A program planned for numpy: constants apart, the other operations in order."""

    constants: Mapping[str, Constant]
    inputs: tuple[Variable, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    rounding: Rounding | None = None

    @property
    def arithmetic(self) -> str:
        """Engine, library version, precision and rounding."""
        rounding = "rounded to fp16 where the program declares fp16" if self.rounding else "no fp16 rounding"
        return f"reference engine, numpy {np.__version__}, fp32, {rounding}; not the Neural Engine"

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Compute every output.

        Raises:
            PackageError: an operation fails, or gives another shape than the program declares.
        """
        values = {one.name: computed(inputs[one.name], one.type.dtype) for one in self.inputs}
        with np.errstate(all="ignore"):  # overflow to inf and NaN are results, as on any hardware
            for step in self.steps:
                self._execute(step, values)
        return {name: self._value(Reference(name), values) for name in self.outputs}

    def _execute(self, step: Step, values: dict[str, Array]) -> None:
        for variable, result in zip(step.operation.outputs, self._results(step, values), strict=True):
            _check_shape(step.operation, variable, result)
            values[variable.name] = self._rounded(computed(result, variable.type.dtype), variable.type)
        for name in step.releases:
            values.pop(name)

    def _results(self, step: Step, values: Mapping[str, Array]) -> tuple[Array, ...]:
        arguments = {name: self._argument(step, name, values) for name in step.arguments}
        try:
            result = step.op.function(**arguments)
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise PackageError(f"expected {where(step.operation)} to be computable, got: {error}") from error
        results = result if isinstance(result, tuple) else (result,)
        if len(results) != len(step.operation.outputs):
            raise PackageError(f"expected {len(results)} outputs of {where(step.operation)}")
        return tuple(np.asarray(one) for one in results)

    def _argument(self, step: Step, name: str, values: Mapping[str, Array]) -> Any:
        resolved = tuple(self._value(argument, values) for argument in step.arguments[name])
        return resolved if name == step.op.variadic else resolved[0]

    def _value(self, argument: Argument, values: Mapping[str, Array]) -> Any:
        if isinstance(argument, Constant):
            return dense(argument)
        if argument.name in values:
            return values[argument.name]
        return dense(self.constants[argument.name])

    def _rounded(self, array: Array, kind: TensorType) -> Array:
        if self.rounding is None or kind.dtype != "fp16":
            return array
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
    body = program.main.body
    constants, computations = split_constants(body.operations)
    return ReferenceProgram(
        constants=constants,
        inputs=body.inputs,
        outputs=body.outputs,
        steps=plan(computations, constants, body.outputs),
        rounding=rounding,
    )


def _check_shape(operation: Operation, variable: Variable, result: Array) -> None:
    declared = variable.type.shape
    fits = len(declared) == result.ndim and all(
        size is None or size == got for size, got in zip(declared, result.shape, strict=True)
    )
    if not fits:
        raise PackageError(
            f"expected shape {list(declared)} from {where(operation)}, got {list(result.shape)}"
        )
