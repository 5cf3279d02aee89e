"""Tensors of sizes that are not known before running, held to their bound once the inputs' shapes are.

What a translation knows of a dynamic size is that it is 1 at least; an addition of [n, 1] to [1, n] is small
then, and two terabytes for an n of a million. So the shapes of the first inputs of each kind are carried
through the graph before OpenVINO allocates anything, and with them the values of small inputs that shapes are
made of. What then is not known still follows from values in other ways, and counts with the most that
OpenVINO's own bounds allow it; if that is too much, or there is no bound, the engine that looks at every size
before it computes has to run the program.
"""

from __future__ import annotations

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino.opset14 as ov
from openvino import Dimension, Model, Node, Output, PartialShape

from sd_mil.errors import PackageError
from sd_mil.ir.limits import check_translated

Arrays: TypeAlias = "Sequence[npt.NDArray[Any]]"
#: The inputs' shapes, and the values of those that shapes are made of.
_Kind: TypeAlias = "tuple[tuple[tuple[int, ...], ...], tuple[bytes, ...]]"

#: The most numbers that an input may have for shapes to be made of it: more are data.
_FEW = 64

#: Kinds of inputs that are remembered; the least recently used is carried through again.
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class SizedOutput:
    """A value of the program in the graph, and how an error calls the operation that computes it."""

    output: Output
    op_type: str
    name: str
    is_fused: bool

    def check(self) -> None:
        """Hold the value to its bound.

        Raises:
            PackageError: it is larger.
            SizesUnknownError: it may be larger.
        """
        shape = self.output.get_partial_shape()
        if any(size.get_max_length() < 0 for size in shape):
            raise SizesUnknownError(f"{self.op_type} {self.name!r} of {shape}")
        try:
            check_translated(self.op_type, self.name, tuple(map(_most, shape)), is_fused=self.is_fused)
        except PackageError as error:
            if shape.is_dynamic:
                raise SizesUnknownError(f"{self.op_type} {self.name!r} of {shape}") from error
            raise


class SizesUnknownError(Exception):
    """Nothing before running says that a value keeps to its bound."""


class SizeCheck:
    """The bound of every value of a dynamic model, for the shapes of its inputs. Not for several threads."""

    def __init__(self, model: Model, outputs: Sequence[SizedOutput], sizing: Iterable[str]) -> None:
        """``model`` is reshaped again and again, and is no longer to be compiled.

        ``sizing`` are the names of the inputs whose values shapes are made of.
        """
        self._model, self._outputs = model, tuple(outputs)
        names = [one.get_node().get_friendly_name() for one in model.inputs]
        self._uses = {names.index(name): _uses(model.inputs[names.index(name)]) for name in sizing}
        self._checked: OrderedDict[_Kind, None] = OrderedDict()

    def check(self, given: Arrays) -> None:
        """Hold all values to their bound, for these inputs, in the order of the parameters.

        Raises:
            PackageError: one is larger.
            RuntimeError: the shapes do not fit each other.
            SizesUnknownError: one may be larger.
        """
        values = tuple(given[position].tobytes() for position in self._uses)
        kind = tuple(array.shape for array in given), values
        if kind in self._checked:
            self._checked.move_to_end(kind)
            return
        for parameter, array in zip(self._model.get_parameters(), given, strict=True):
            parameter.set_partial_shape(PartialShape(list(array.shape)))
        for position, uses in self._uses.items():
            value = ov.constant(given[position]).output(0)
            for use in uses:
                use.replace_source_output(value)
        self._model.validate_nodes_and_infer_types()
        for one in self._outputs:
            one.check()
        self._checked[kind] = None
        if len(self._checked) > _REMEMBERED:
            self._checked.popitem(last=False)


def sizing_inputs(sizes: Output) -> list[Node] | None:
    """The inputs of the graph whose values ``sizes`` are made of, and not only of their shapes.

    None when there are others among them than a few integers.
    """
    waiting, seen, found = [sizes.get_node()], set(), []
    while waiting:
        node = waiting.pop()
        if node.get_name() in seen or node.get_type_name() == "ShapeOf":
            continue
        seen.add(node.get_name())
        if node.get_type_name() == "Parameter":
            found.append(node)
        waiting += [node.input_value(position).get_node() for position in range(node.get_input_size())]
    return found if all(map(_is_few_integers, found)) else None


def _is_few_integers(node: Node) -> bool:
    shape = node.get_output_partial_shape(0)
    integral = node.get_output_element_type(0).is_integral_number()
    return bool(integral and shape.is_static and np.prod(shape.to_shape()) <= _FEW)


def _uses(parameter: Output) -> list[Any]:
    return list(parameter.get_target_inputs())


def _most(dimension: Dimension) -> int:
    """The most that a bounded size may be, and 1 at that."""
    return max(1, int(dimension.get_max_length()))
