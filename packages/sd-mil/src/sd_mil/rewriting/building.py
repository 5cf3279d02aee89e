"""Operations put together for a program that will be written: parameters are constants with names.

A file for iOS 16 and 17 has its parameters as ``const`` operations, and a later one may have: so these do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sd_mil.ir.program import Argument, Block, Constant, Operation, Reference, TensorType, ValueType, Variable

_TEXT = TensorType("string", ())


def named(name: str) -> dict[str, Constant]:
    """The attribute that tools give to every operation."""
    return {"name": Constant(_TEXT, name)}


def defined_names(block: Block) -> set[str]:
    """Every name that the block or one nested in it defines."""
    names = {variable.name for variable in block.inputs}
    for operation in block.operations:
        names |= {variable.name for variable in operation.outputs}
        for inner in operation.blocks:
            names |= defined_names(inner)
    return names


@dataclass(slots=True)
class Builder:
    """Collects operations, under names that nothing has."""

    taken: set[str]
    operations: list[Operation] = field(default_factory=list)

    @staticmethod
    def beside(block: Block) -> Builder:
        """For operations that are to stand among those of ``block``."""
        return Builder(defined_names(block))

    def name(self, wanted: str) -> str:
        """``wanted``, or with a number behind it."""
        name, number = wanted, 1
        while name in self.taken:
            name, number = f"{wanted}_{number}", number + 1
        self.taken.add(name)
        return name

    def const(self, wanted: str, value: Constant) -> Reference:
        """A ``const``."""
        name = self.name(wanted)
        variable = Variable(name, value.type)
        self.operations.append(Operation("const", name, {}, (variable,), {**named(name), "val": value}))
        return Reference(name)

    def integers(self, wanted: str, values: Iterable[int]) -> Reference:
        """A ``const`` of int32 in one dimension."""
        array = np.array(list(values), np.int32)
        return self.const(wanted, Constant(TensorType("int32", array.shape), array))

    def integer(self, wanted: str, value: int) -> Reference:
        """A ``const`` of one int32."""
        return self.const(wanted, Constant(TensorType("int32", ()), np.array(value, np.int32)))

    def claim(self, value: bool, wanted: str) -> Reference:
        """A ``const`` of one bool."""
        return self.const(wanted, Constant(TensorType("bool", ()), np.array(value)))

    def call(self, kind: str, output: Variable, **inputs: Argument | tuple[Argument, ...]) -> Reference:
        """An operation with one output, whose name it has."""
        given = {key: one if isinstance(one, tuple) else (one,) for key, one in inputs.items()}
        self.operations.append(Operation(kind, output.name, given, (output,), named(output.name)))
        return Reference(output.name)

    def value(self, wanted: str, kind: ValueType) -> Variable:
        """A variable under a new name."""
        return Variable(self.name(wanted), kind)

    def slice(
        self, wanted: str, source: Reference, kind: TensorType, axis: int, begin: int, end: int
    ) -> Reference:
        """``source``, of type ``kind``, from ``begin`` to ``end`` along one axis."""
        sizes = [size or 0 for size in kind.shape]
        axis %= len(sizes)
        output = self.value(wanted, resized(kind, axis, end - begin))
        begins = [begin if place == axis else 0 for place in range(len(sizes))]
        ends = [end if place == axis else size for place, size in enumerate(sizes)]
        return self.call(
            "slice_by_index",
            output,
            x=source,
            begin=self.integers(f"{output.name}_begin", begins),
            end=self.integers(f"{output.name}_end", ends),
        )

    def concat(self, output: Variable, parts: Collection[Reference], axis: int) -> Reference:
        """``parts`` one after another along an axis."""
        return self.call(
            "concat",
            output,
            values=tuple(parts),
            axis=self.integer(f"{output.name}_axis", axis),
            interleave=self.claim(False, f"{output.name}_interleave"),
        )


def resized(kind: TensorType, axis: int, size: int) -> TensorType:
    """The type with another size of one axis."""
    axis %= len(kind.shape)
    return TensorType(kind.dtype, (*kind.shape[:axis], size, *kind.shape[axis + 1 :]))


def replaced(
    block: Block, made: Iterable[tuple[Sequence[Operation], Sequence[Operation]]]
) -> list[Operation]:
    """The operations of ``block``, with others in the place of some: at that of the last of these."""
    others: dict[int, Sequence[Operation]] = {}
    for old, new in made:
        others |= dict.fromkeys(map(id, old), ())
        others[id(old[-1])] = new
    return [one for operation in block.operations for one in others.get(id(operation), (operation,))]
