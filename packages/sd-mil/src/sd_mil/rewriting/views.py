"""Which part of which value a value is: slices, splits and transposes followed back to where they start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from sd_mil.ir.program import Argument, Block, Constant, Operation, Payload, Reference
from sd_mil.ir.uses import constant_of, operand

Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class View:
    """A box of ``root`` with its axes permuted: axis ``i`` of the view is axis ``order[i]`` of the root.

    ``ranges[i]`` is what the view takes of axis ``order[i]``, [begin, end).
    """

    root: str
    order: tuple[int, ...]
    ranges: tuple[Range, ...]

    def permuted(self, axes: tuple[int, ...]) -> View:
        """The view whose axis ``i`` is this one's axis ``axes[i]``."""
        order = tuple(self.order[axis] for axis in axes)
        return View(self.root, order, tuple(self.ranges[axis] for axis in axes))

    def narrowed(self, ranges: tuple[Range, ...]) -> View:
        """The box ``ranges`` of this view."""
        absolute = tuple(
            (start + begin, start + end) for (start, _), (begin, end) in zip(self.ranges, ranges, strict=True)
        )
        return replace(self, ranges=absolute)


def join(views: list[View], *, axis: int) -> View | None:
    """The box that views of equal width fill side by side along ``axis``, in order; None when they do not."""
    first = views[0]
    begin, end = first.ranges[axis]
    width = end - begin
    for position, view in enumerate(views):
        expected = (begin + position * width, end + position * width)
        if view != replace(first, ranges=_with_range(first.ranges, axis, expected)):
            return None
    return replace(first, ranges=_with_range(first.ranges, axis, (begin, begin + width * len(views))))


def _with_range(ranges: tuple[Range, ...], axis: int, new: Range) -> tuple[Range, ...]:
    return (*ranges[:axis], new, *ranges[axis + 1 :])


@dataclass(frozen=True, slots=True)
class Definitions:
    """Who computes each value of a block, and what is constant."""

    producers: Mapping[str, Operation]
    shapes: Mapping[str, tuple[int | None, ...]]

    @staticmethod
    def of(block: Block) -> Definitions:
        """Index ``block``."""
        computed = [(output, operation) for operation in block.operations for output in operation.outputs]
        shapes = {variable.name: variable.type.shape for variable in block.inputs}
        return Definitions(
            producers={output.name: operation for output, operation in computed},
            shapes=shapes | {output.name: output.type.shape for output, _ in computed},
        )

    def producer(self, name: str, op_type: str) -> Operation | None:
        """The operation that computes ``name``, if it is of type ``op_type``."""
        operation = self.producers.get(name)
        return operation if operation is not None and operation.type == op_type else None

    def operands(self, operation: Operation, parameter: str) -> list[str]:
        """Names of the values given for ``parameter``; none when one of them is an immediate constant."""
        arguments = operation.inputs.get(parameter, ())
        names = [argument.name for argument in arguments if isinstance(argument, Reference)]
        return names if len(names) == len(arguments) else []

    def operand(self, operation: Operation, parameter: str) -> str:
        """Name of the one value given for ``parameter``; empty, which names nothing, when there is none."""
        return operand(operation, parameter)

    def constant(self, operation: Operation, parameter: str) -> Payload | None:
        """The constant given for ``parameter``: an array or a string; None when absent or computed."""
        arguments = operation.inputs.get(parameter, ())
        argument: Argument | None = arguments[0] if len(arguments) == 1 else None
        if isinstance(argument, Reference):
            const = self.producer(argument.name, "const")
            argument = None if const is None else constant_of(const)
        return argument.value if isinstance(argument, Constant) else None

    def ints(self, operation: Operation, parameter: str) -> list[int] | None:
        """The constant integers (or bools) given for ``parameter``; None when absent or computed."""
        value = self.constant(operation, parameter)
        if not isinstance(value, np.ndarray | np.generic):
            return None
        return [int(item) for item in np.asarray(value).ravel().tolist()]

    def whole(self, name: str) -> View | None:
        """All of ``name``; None when its shape is not known."""
        sizes = self._sizes(name)
        if sizes is None:
            return None
        return View(name, tuple(range(len(sizes))), tuple((0, size) for size in sizes))

    def is_whole(self, view: View) -> bool:
        """Whether ``view`` leaves out nothing of its root."""
        return view.ranges == tuple((0, self.shapes[view.root][axis]) for axis in view.order)

    def view(self, name: str) -> View | None:
        """``name`` as a part of the value where its slices, splits and transposes start.

        None when its shape is not known.
        """
        operation = self.producers.get(name)
        base = None if operation is None else self._part(operation, name)
        return self.whole(name) if base is None else base

    def _part(self, operation: Operation, name: str) -> View | None:
        """``name`` as a part of what ``operation`` reads; None when it is not one."""
        source = self.operand(operation, "x")
        sizes = self._sizes(source)
        if sizes is None or operation.type not in ("transpose", "slice_by_index", "split"):
            return None
        base = self.view(source)
        if base is None:
            return None
        if operation.type == "transpose":
            order = self.ints(operation, "perm")
            return None if order is None else base.permuted(tuple(axis % len(sizes) for axis in order))
        if operation.type == "split":
            return base.narrowed(self._split_ranges(operation, name, sizes))
        ranges = self._slice_ranges(operation, sizes)
        return None if ranges is None else base.narrowed(ranges)

    def _slice_ranges(self, operation: Operation, sizes: list[int]) -> tuple[Range, ...] | None:
        begins, ends = self.ints(operation, "begin"), self.ints(operation, "end")
        if begins is None or ends is None or any(self.ints(operation, "squeeze_mask") or ()):
            return None
        if set(self.ints(operation, "stride") or [1]) != {1}:
            return None
        unmasked = [0] * len(sizes)
        begin_mask = self.ints(operation, "begin_mask") or unmasked
        end_mask = self.ints(operation, "end_mask") or unmasked
        bounds = zip(begins, ends, begin_mask, end_mask, sizes, strict=True)
        return tuple(
            slice(None if no_begin else begin, None if no_end else end).indices(size)[:2]
            for begin, end, no_begin, no_end, size in bounds
        )

    def _split_ranges(self, operation: Operation, name: str, sizes: list[int]) -> tuple[Range, ...]:
        axis = (self.ints(operation, "axis") or [0])[0] % len(sizes)
        names = [output.name for output in operation.outputs]
        widths = [self.shapes[output][axis] or 0 for output in names]
        begin = sum(widths[: names.index(name)])
        whole = tuple((0, size) for size in sizes)
        return _with_range(whole, axis, (begin, begin + widths[names.index(name)]))

    def _sizes(self, name: str) -> list[int] | None:
        sizes = [size for size in self.shapes.get(name, (None,)) if size is not None]
        return sizes if len(sizes) == len(self.shapes.get(name, (None,))) else None
