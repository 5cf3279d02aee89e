"""Casts from fp16 to fp32 and back, with nothing computed in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sd_mil.ir.program import Argument, Operation, Program, Reference, TensorType, ValueType
from sd_mil.ir.uses import live_operations, operand, types_in, with_operations
from sd_mil.rewriting.building import Builder, named
from sd_mil.rewriting.moves import MOVES, casts
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import IN_ORDER, NO_NEEDLESS_CASTS


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER, NO_NEEDLESS_CASTS))
def drop_cast_pairs(program: Program) -> Program:
    """Keep in fp16 what is cast to fp32, only moved, and cast back.

    Given::   a = cast(x, dtype="fp32"); b = transpose(a, perm=p); c = cast(b, dtype="fp16"); y = relu(c)
    Result::  b_fp16 = transpose(x, perm=p); y = relu(b_fp16)

    Every fp16 number is an fp32 number, so not a bit changes; the other way round numbers would be rounded,
    and such casts stay.
    """
    body = program.main.body
    kept = _Kept(Builder.beside(body), types_in(body), frozenset(body.outputs))
    for operation in body.operations:
        kept.add(operation)
    operations = live_operations(replace(body, operations=tuple(kept.builder.operations)))
    return with_operations(program, operations) if kept.changes else program


@dataclass(slots=True)
class _Kept:
    """``halves``: fp16 values by the fp32 values that are equal to them; ``same``: by the casts back."""

    builder: Builder
    types: Mapping[str, ValueType]
    returned: frozenset[str]
    halves: dict[str, str] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    changes: int = 0

    def add(self, operation: Operation) -> None:
        """Keep an operation, and the same in fp16 beside it where it moves what was fp16."""
        operation = operation if operation.blocks else self._reading(operation)
        half = self.halves.get(operand(operation, "x"))
        if casts(operation, self.types) == ("fp16", "fp32"):
            self.halves[operation.outputs[0].name] = operand(operation, "x")
        elif half is not None and casts(operation, self.types) == ("fp32", "fp16"):
            operation = self._back(operation, half)
        self.builder.operations.append(operation)
        if half is not None and operation.type in MOVES and operation.outputs[0].type.dtype == "fp32":
            self._move(operation, half)

    def _back(self, cast: Operation, half: str) -> Operation:
        """What a cast back becomes: its readers read the half, and an output is the half by another name."""
        output = cast.outputs[0]
        self.changes += 1
        if output.name not in self.returned:
            self.same[output.name] = half
            return cast
        return replace(cast, type="identity", inputs={"x": (Reference(half),)})

    def _move(self, operation: Operation, half: str) -> None:
        output = operation.outputs[0]
        made = self.builder.value(f"{output.name}_fp16", TensorType("fp16", output.type.shape))
        inputs = {**operation.inputs, "x": (Reference(half),)}
        attributes = {**operation.attributes, **named(made.name)}
        self.builder.operations.append(
            replace(operation, name=made.name, inputs=inputs, outputs=(made,), attributes=attributes)
        )
        self.halves[output.name] = made.name

    def _reading(self, operation: Operation) -> Operation:
        def renamed(argument: Argument) -> Argument:
            if isinstance(argument, Reference) and argument.name in self.same:
                return Reference(self.same[argument.name])
            return argument

        inputs = {name: tuple(map(renamed, given)) for name, given in operation.inputs.items()}
        return operation if inputs == operation.inputs else replace(operation, inputs=inputs)
