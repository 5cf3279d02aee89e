"""One operation as its translator sees it: parameters by name, as graph outputs or as plain Python values."""

from __future__ import annotations

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from openvino import Output

from sd_mil.engines.openvino.constants import constant_array
from sd_mil.engines.openvino.scope import Scope
from sd_mil.errors import PackageError, UnsupportedOpError
from sd_mil.ir.program import Argument, Constant, Operation

#: No position, count, padding or stride of a real program is further from zero. OpenVINO multiplies and adds
#: such numbers in integers that overflow, and divides by what comes out.
_FARTHEST = 1 << 30


@dataclass(frozen=True, slots=True)
class Call:
    """An operation and the scope in which its arguments mean something.

    ``output``/``outputs`` give data. ``array``, ``ints``, ``integer``, ``number``, ``flag`` and ``text`` give
    parameters that must be known when the graph is built. So do ``axis``, ``axes``, ``count`` and ``counts``,
    which hold them to their range besides: what is outside is left to the reference engine, which has the
    error for it.
    """

    operation: Operation
    scope: Scope

    def __contains__(self, parameter: str) -> bool:
        """Whether the operation gives the parameter at all."""
        return parameter in self.operation.inputs or parameter in self.operation.attributes

    def output(self, parameter: str) -> Output:
        """The parameter as data.

        Raises: PackageError when it is missing; UnsupportedOpError when it is empty, which is numpy's.
        """
        return self._filled(self.scope.output(self._argument(parameter)))

    def outputs(self, parameter: str) -> list[Output]:
        """A variadic parameter as data."""
        return [self._filled(self.scope.output(argument)) for argument in self._arguments(parameter)]

    def _filled(self, output: Output) -> Output:
        if any(size == 0 for size in output.get_partial_shape()):
            raise self.unsupported("a tensor of no elements")
        return output

    def shape(self, output: Output) -> list[int]:
        """The sizes of ``output``.

        Raises: UnsupportedOpError when they are not known before running.
        """
        if output.get_partial_shape().is_dynamic:
            raise self.unsupported("a shape that is not known before running")
        return [int(size) for size in output.get_shape()]

    def is_constant(self, parameter: str) -> bool:
        """Whether the parameter is given and known while the graph is built."""
        return parameter in self and self.scope.constant(self._argument(parameter)) is not None

    def array(self, parameter: str) -> npt.NDArray[np.generic]:
        """The parameter's constant value.

        Raises: UnsupportedOpError when it is computed by the program; PackageError when missing or text.
        """
        return constant_array(self._constant(parameter), where=self._where(parameter))

    def arrays(self, parameter: str) -> list[npt.NDArray[np.generic]]:
        """The constant values of a variadic parameter."""
        found = [self.scope.constant(argument) for argument in self._arguments(parameter)]
        constants = [one for one in found if one is not None]
        if len(constants) != len(found):
            raise self.unsupported(f"{parameter} that the program computes; expected constants")
        return [constant_array(one, where=self._where(parameter)) for one in constants]

    def ints(self, parameter: str, default: list[int] | None = None) -> list[int]:
        """A constant list of integers (or bools, as 0 and 1); ``default`` when it is not given."""
        if default is not None and parameter not in self:
            return default
        return [int(item) for item in self.array(parameter).ravel().tolist()]

    def integer(self, parameter: str, default: int | None = None) -> int:
        """A constant integer."""
        return int(self.number(parameter, default))

    def axis(self, parameter: str, default: int | None = None, *, rank: int) -> int:
        """A constant axis of a tensor of ``rank`` dimensions, counted from the first.

        Raises: UnsupportedOpError when there is no such axis.
        """
        return self._axis(parameter, self.integer(parameter, default), rank)

    def axes(self, parameter: str, default: list[int] | None = None, *, rank: int) -> list[int]:
        """Constant axes of a tensor of ``rank`` dimensions, counted from the first, each once.

        Raises: UnsupportedOpError when there is no such axis, or when it is given twice.
        """
        axes = [self._axis(parameter, axis, rank) for axis in self.ints(parameter, default)]
        if len(set(axes)) != len(axes):
            raise self.unsupported(f"{parameter}={axes}; expected each once")
        return axes

    def _axis(self, parameter: str, axis: int, rank: int) -> int:
        if not -rank <= axis < rank:
            raise self.unsupported(f"{parameter}={axis} of {rank} dimensions")
        return axis % rank

    def count(self, parameter: str, default: int | None = None, *, least: int = 0) -> int:
        """A constant integer from ``least`` on, and of a size that OpenVINO can calculate with.

        Raises: UnsupportedOpError when it is another.
        """
        value = self.integer(parameter, default)
        if not least <= value <= _FARTHEST:
            raise self.unsupported(f"{parameter}={value}; expected {least} to {_FARTHEST}")
        return value

    def counts(
        self, parameter: str, default: list[int] | None = None, *, length: int | None = None, least: int = 0
    ) -> list[int]:
        """Constant integers, each as in ``count``, and ``length`` of them if that is given.

        Raises: UnsupportedOpError when they are others.
        """
        values = self.ints(parameter, default)
        if not all(least <= value <= _FARTHEST for value in values):
            raise self.unsupported(f"{parameter}={values}; expected {least} to {_FARTHEST}")
        if length is not None and len(values) != length:
            raise self.unsupported(f"{len(values)} {parameter}; expected {length}")
        return values

    def number(self, parameter: str, default: float | None = None) -> float:
        """A constant number; ``default`` when it is not given."""
        if default is not None and parameter not in self:
            return default
        value = self.array(parameter)
        if value.size != 1:
            raise PackageError(f"expected one number, got shape {value.shape} for {self._where(parameter)}")
        return float(value.item())

    def flag(self, parameter: str, default: bool = False) -> bool:
        """A constant truth value."""
        return bool(self.number(parameter, float(default)))

    def text(self, parameter: str, default: str | None = None) -> str:
        """A constant string.

        Raises: PackageError when it is something else.
        """
        if default is not None and parameter not in self:
            return default
        value = self._constant(parameter).value
        if not isinstance(value, str):
            raise PackageError(f"expected a string, got {value!r} for {self._where(parameter)}")
        return value

    def choice(self, parameter: str, default: str | None, *, among: tuple[str, ...]) -> str:
        """A constant string that must be one of ``among``."""
        value = self.text(parameter, default)
        if value not in among:
            raise self.unsupported(f"{parameter}={value!r}; expected one of {', '.join(among)}")
        return value

    def unsupported(self, what: str) -> UnsupportedOpError:
        """The error that says this operation, used this way, cannot be translated."""
        output = self.operation.outputs[0] if self.operation.outputs else None
        return UnsupportedOpError(
            f"the portable engine does not run {self.operation.type} {self.operation.name!r}"
            f" (output {output.name if output else 'none'!r}) with {what}"
        )

    def _arguments(self, parameter: str) -> tuple[Argument, ...]:
        if parameter in self.operation.inputs:
            return self.operation.inputs[parameter]
        if parameter in self.operation.attributes:
            return (self.operation.attributes[parameter],)
        given = sorted({*self.operation.inputs, *self.operation.attributes})
        raise PackageError(f"expected a parameter, got only {given} for {self._where(parameter)}")

    def _argument(self, parameter: str) -> Argument:
        arguments = self._arguments(parameter)
        if len(arguments) != 1:
            raise PackageError(f"expected one argument, got {len(arguments)} for {self._where(parameter)}")
        return arguments[0]

    def _constant(self, parameter: str) -> Constant:
        constant = self.scope.constant(self._argument(parameter))
        if constant is None:
            raise self.unsupported(f"a {parameter} that the program computes; expected a constant")
        return constant

    def _where(self, parameter: str) -> str:
        return f"{parameter!r} of {self.operation.type} {self.operation.name!r}"
