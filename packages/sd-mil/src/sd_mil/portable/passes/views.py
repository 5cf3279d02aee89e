"""Which part of which value a value is: slices, splits and transposes followed back to where they start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sd_mil.program import Argument, Block, Constant, Operation, Reference

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class View:
    """A box of ``root`` with its axes permuted: axis ``i`` of the view is axis ``order[i]`` of the root.

    ``ranges[i]`` is what the view takes of axis ``order[i]``, [begin, end).
    """

    root: str
    order: tuple[int, ...]
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Definitions:
    """Who computes each value of a block, and what is constant."""

    producers: Mapping[str, Operation]
    shapes: Mapping[str, tuple[int | None, ...]]

    @staticmethod
    def of(block: Block) -> Definitions:
        """Index ``block``."""
        producers = {output.name: operation for operation in block.operations for output in operation.outputs}
        variables = [
            *block.inputs,
            *(output for operation in block.operations for output in operation.outputs),
        ]
        return Definitions(producers, {variable.name: variable.type.shape for variable in variables})

    def producer(self, argument: Argument | str, op_type: str) -> Operation | None:
        """The operation that computes ``argument``, if it is of type ``op_type``."""
        name = argument if isinstance(argument, str) else getattr(argument, "name", None)
        operation = self.producers.get(name) if name else None
        return operation if operation is not None and operation.type == op_type else None

    def constant(self, operation: Operation, parameter: str) -> object:
        """The constant given for ``parameter``: an array or a string; None when absent or computed."""
        arguments = operation.inputs.get(parameter, ())
        if len(arguments) != 1:
            return None
        argument: Argument | None = arguments[0]
        if isinstance(argument, Reference):
            const = self.producer(argument, "const")
            argument = const.attributes.get("val") if const else None
        return argument.value if isinstance(argument, Constant) else None

    def ints(self, operation: Operation, parameter: str) -> list[int] | None:
        """The constant integers given for ``parameter``; None when absent or computed."""
        value = self.constant(operation, parameter)
        if not isinstance(value, np.ndarray | np.generic):
            return None
        return [int(item) for item in np.asarray(value).ravel().tolist()]

    def view(self, name: str) -> View | None:
        """``name`` as a part of the value where its slices, splits and transposes start.

        None when its shape is not known.
        """
        operation = self.producers.get(name)
        source = self._source(operation) if operation is not None else None
        step = self._step(operation, name) if operation is not None and source is not None else None
        if source is None or step is None:
            return self._whole(name)
        base = self.view(source)
        if base is None:
            return None
        order, ranges = step
        return View(
            base.root,
            tuple(base.order[axis] for axis in order),
            tuple(
                (base.ranges[axis][0] + begin, base.ranges[axis][0] + end)
                for axis, (begin, end) in zip(order, ranges, strict=True)
            ),
        )

    def _whole(self, name: str) -> View | None:
        shape = self.shapes.get(name)
        if shape is None or None in shape:
            return None
        return View(name, tuple(range(len(shape))), tuple((0, size) for size in shape if size is not None))

    def _source(self, operation: Operation) -> str | None:
        arguments = operation.inputs.get("x", ())
        return arguments[0].name if len(arguments) == 1 and isinstance(arguments[0], Reference) else None

    def _step(self, operation: Operation, name: str) -> tuple[tuple[int, ...], tuple[Range, ...]] | None:
        """What one operation takes of its ``x``: the order of axes, and a range for each of the result's axes."""
        source = self._source(operation)
        shape = self.shapes.get(source) if source else None
        if shape is None or None in shape:
            return None
        sizes = [size for size in shape if size is not None]
        if operation.type == "transpose":
            order = tuple(axis % len(sizes) for axis in self.ints(operation, "perm") or ())
            return order, tuple((0, sizes[axis]) for axis in order)
        if operation.type == "slice_by_index":
            ranges = self._slice_ranges(operation, sizes)
        elif operation.type == "split":
            ranges = self._split_ranges(operation, name, sizes)
        else:
            ranges = None
        return None if ranges is None else (tuple(range(len(sizes))), ranges)

    def _slice_ranges(self, operation: Operation, sizes: list[int]) -> tuple[Range, ...] | None:
        begins, ends = self.ints(operation, "begin"), self.ints(operation, "end")
        if begins is None or ends is None or any(self.ints(operation, "squeeze_mask") or ()):
            return None
        if set(self.ints(operation, "stride") or [1]) != {1}:
            return None
        unmasked = [0] * len(sizes)
        begin_mask = self.ints(operation, "begin_mask") or unmasked
        end_mask = self.ints(operation, "end_mask") or unmasked
        bounds = [
            slice(None if no_begin else begin, None if no_end else end).indices(size)
            for begin, end, no_begin, no_end, size in zip(
                begins, ends, begin_mask, end_mask, sizes, strict=True
            )
        ]
        return tuple((begin, end) for begin, end, _ in bounds)

    def _split_ranges(self, operation: Operation, name: str, sizes: list[int]) -> tuple[Range, ...] | None:
        axis = (self.ints(operation, "axis") or [0])[0] % len(sizes)
        widths = [self.shapes[output.name][axis] or 0 for output in operation.outputs]
        position = [output.name for output in operation.outputs].index(name)
        begin = sum(widths[:position])
        ranges: list[Range] = [(0, size) for size in sizes]
        ranges[axis] = (begin, begin + widths[position])
        return tuple(ranges)
