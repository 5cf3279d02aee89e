"""Casts that change no number in this engine."""

from __future__ import annotations

from dataclasses import replace

from sd_mil.ir.program import Argument, Block, Operation, Program, Reference, TensorType
from sd_mil.ir.uses import with_operations
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import CASTS_UNREAD, IN_ORDER

_FLOATS = ("fp16", "fp32")


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER, CASTS_UNREAD))
def drop_casts(program: Program) -> Program:
    """Read what a cast between float types reads, because both are computed in the same type.

    Given::   a = cast(x, dtype="fp32"); y = softmax(a); z = cast(y, dtype="fp16"); -> (z)
    Result::  a = cast(x, dtype="fp32"); y = softmax(x); z = cast(y, dtype="fp16"); -> (z)

    A cast that the program returns keeps its name. Blocks inside of operations are left alone, and so is what
    they read.
    """
    operations, _ = _dropped(program.main.body)
    return with_operations(program, operations)


def without_casts(block: Block) -> Block:
    """The block, in which nothing reads a cast between float types, and none is returned."""
    operations, sources = _dropped(block)
    outputs = tuple(sources.get(name, name) for name in block.outputs)
    return replace(block, operations=tuple(operations), outputs=outputs)


def _dropped(body: Block) -> tuple[list[Operation], dict[str, str]]:
    """The operations, and what is read in the place of each cast."""
    dtypes = {one.name: one.type.dtype for one in body.inputs if isinstance(one.type, TensorType)}
    sources: dict[str, str] = {}
    operations: list[Operation] = []
    for operation in body.operations:
        for output in operation.outputs:
            if isinstance(output.type, TensorType):
                dtypes[output.name] = output.type.dtype
        rewritten = operation if operation.blocks else _reading(operation, sources)
        operations.append(rewritten)
        if operation.type == "cast":
            (output,) = operation.outputs
            (argument,) = rewritten.inputs["x"]
            if isinstance(argument, Reference) and {dtypes.get(argument.name), output.type.dtype} <= {
                *_FLOATS
            }:
                sources[output.name] = argument.name
    return operations, sources


def _reading(operation: Operation, sources: dict[str, str]) -> Operation:
    """``operation`` with other names for what it reads."""

    def renamed(argument: Argument) -> Argument:
        if isinstance(argument, Reference) and argument.name in sources:
            return Reference(sources[argument.name])
        return argument

    inputs = {name: tuple(map(renamed, arguments)) for name, arguments in operation.inputs.items()}
    return operation if inputs == operation.inputs else replace(operation, inputs=inputs)
