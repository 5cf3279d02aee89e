"""What a name means while a program is translated: a constant known now, or an output of the graph."""

from __future__ import annotations

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
import numpy as np
import openvino.opset14 as ov
from openvino import Output

from sd_mil.engines.openvino.constants import constant_output
from sd_mil.engines.openvino.sizes import SizedOutput
from sd_mil.errors import PackageError
from sd_mil.ir.program import Argument, Constant, Reference


class Scope:
    """Names in scope, in definition order.

    A constant becomes a graph node only when an operation asks for it as data, and then once, so that a
    weight used by several operations is held once and parameters such as ``strides`` leave no node behind.
    """

    def __init__(self, fused: frozenset[str] = frozenset()) -> None:
        """Start with nothing defined; ``fused`` are values that are never whole in memory."""
        self.fused = fused
        self._constants: dict[str, Constant] = {}
        self._outputs: dict[str, Output] = {}
        #: Where each index of an operation is out of range, and which operation it is.
        self.violations: list[tuple[Output, str]] = []
        #: What operations compute, for who knows the inputs' shapes.
        self.sized: list[SizedOutput] = []
        #: The names of inputs whose values shapes are made of.
        self.sizing: set[str] = set()

    def define(self, name: str, value: Output | Constant) -> None:
        """Bind ``name``.

        Raises: PackageError when it is bound already (a program is in SSA form).
        """
        if name in self._constants or name in self._outputs:
            raise PackageError(f"value {name!r} is defined twice; an ML Program defines every value once")
        if isinstance(value, Constant):
            self._constants[name] = value
        else:
            self._outputs[name] = value

    def constant(self, argument: Argument) -> Constant | None:
        """The constant that ``argument`` is or refers to; None when it is computed."""
        return self._constants.get(argument.name) if isinstance(argument, Reference) else argument

    def output(self, argument: Argument) -> Output:
        """``argument`` as an output of the graph.

        Raises: PackageError when nothing of that name was defined before.
        """
        if isinstance(argument, Constant):
            return constant_output(argument)
        if argument.name not in self._outputs:
            if argument.name not in self._constants:
                raise PackageError(f"value {argument.name!r} is used before anything defines it")
            self._outputs[argument.name] = constant_output(self._constants[argument.name])
        return self._outputs[argument.name]


def int_list(values: np.ndarray | list[int] | tuple[int, ...]) -> Output:
    """A one-dimensional int32 constant, as shapes, axes and permutations are given to OpenVINO."""
    return ov.constant(np.asarray(values, dtype=np.int32)).output(0)
