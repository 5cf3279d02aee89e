"""Tensors of sizes that are not known before running, held to their bound once the inputs' shapes are.

What a translation knows of a dynamic size is that it is 1 at least; an addition of [n, 1] to [1, n] is small
then, and two terabytes for an n of a million. So the shapes of the first inputs of each kind are carried
through the graph before OpenVINO allocates anything. Sizes that follow from values of inputs count with the
most that OpenVINO's own bounds allow them, where there are any.
"""

from __future__ import annotations

from sd_mil.engines.openvino import library  # noqa: F401 (before openvino)

# isort: split
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from openvino import Dimension, Model, Output, PartialShape

from sd_mil.ir.limits import check_translated

Shapes: TypeAlias = tuple[tuple[int, ...], ...]

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
        """
        shape = tuple(map(_most, self.output.get_partial_shape()))
        check_translated(self.op_type, self.name, shape, is_fused=self.is_fused)


class SizeCheck:
    """The bound of every value of a dynamic model, for the shapes of its inputs. Not for several threads."""

    def __init__(self, model: Model, outputs: Sequence[SizedOutput]) -> None:
        """``model`` is reshaped again and again, and is no longer to be compiled."""
        self._model, self._outputs = model, tuple(outputs)
        self._checked: OrderedDict[Shapes, None] = OrderedDict()

    def check(self, shapes: Shapes) -> None:
        """Hold all values to their bound, for inputs of these shapes, in the order of the parameters.

        Raises:
            PackageError: one is larger.
            RuntimeError: the shapes do not fit each other.
        """
        if shapes in self._checked:
            self._checked.move_to_end(shapes)
            return
        parameters = self._model.inputs
        self._model.reshape(
            {one: PartialShape(list(shape)) for one, shape in zip(parameters, shapes, strict=True)}
        )
        for one in self._outputs:
            one.check()
        self._checked[shapes] = None
        if len(self._checked) > _REMEMBERED:
            self._checked.popitem(last=False)


def _most(dimension: Dimension) -> int:
    """The size, or the most that it may be; of one without a bound the least, and 1 at that."""
    largest = dimension.get_max_length()
    return max(1, int(largest if largest >= 0 else dimension.get_min_length()))
