"""What every pass and engine asks of operations and blocks: which values they read, define and capture."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from sd_mil.ir.program import Argument, Block, Constant, Operation, Program, Reference, ValueType

#: Types of operations that do something besides computing their outputs.
_EFFECTS = frozenset({"write_state", "coreml_update_state"})


def constant_of(operation: Operation) -> Constant | None:
    """The value of a ``const``, kept as attribute or as parameter; None of other operations.

    None, too, of a const that has no value: :func:`sd_mil.read_package` refuses those.
    """
    if operation.type != "const":
        return None
    value = operation.attributes.get("val") or next(iter(operation.inputs.get("val", ())), None)
    return value if isinstance(value, Constant) else None


def constants_of(operations: Iterable[Operation]) -> dict[str, Constant]:
    """The values of all ``const`` among the operations, by name."""
    return {
        output.name: value
        for operation in operations
        if (value := constant_of(operation)) is not None
        for output in operation.outputs
    }


def references(operation: Operation) -> Iterator[str]:
    """The name that each argument of the operation refers to, in order; nested blocks are not looked into."""
    for arguments in operation.inputs.values():
        yield from (argument.name for argument in arguments if isinstance(argument, Reference))


def operand(operation: Operation, parameter: str) -> str:
    """The name of the one value given for a parameter; empty, which names nothing, where there is none."""
    given = operation.inputs.get(parameter, ())
    return given[0].name if len(given) == 1 and isinstance(given[0], Reference) else ""


def names_used(operation: Operation) -> frozenset[str]:
    """Every name that the operation or one of its nested blocks takes from outside."""
    return frozenset(references(operation)).union(*map(captured, operation.blocks))


def captured(block: Block) -> frozenset[str]:
    """The names that a block, or one nested in it, uses without defining them."""
    used, defined = set(block.outputs), {variable.name for variable in block.inputs}
    for operation in block.operations:
        used |= names_used(operation)
        defined |= {variable.name for variable in operation.outputs}
    return frozenset(used - defined)


def has_effects(operation: Operation) -> bool:
    """Whether the operation, or one nested in it, does more than compute its outputs: it writes a state."""
    return (
        operation.type in _EFFECTS
        or not operation.outputs
        or any(has_effects(inner) for block in operation.blocks for inner in block.operations)
    )


def live_operations(block: Block) -> tuple[Operation, ...]:
    """Those that have effects, or compute what the block returns or another of them uses; in order."""
    needed, live = set(block.outputs), []
    for operation in reversed(block.operations):
        if has_effects(operation) or any(output.name in needed for output in operation.outputs):
            live.append(operation)
            needed |= names_used(operation)
    return tuple(reversed(live))


def constants_in(block: Block) -> Iterator[Constant]:
    """Every constant of a block and of those nested in it, in the order in which a message has them."""
    for operation in block.operations:
        for arguments in operation.inputs.values():
            yield from (argument for argument in arguments if isinstance(argument, Constant))
        for inner in operation.blocks:
            yield from constants_in(inner)
        yield from operation.attributes.values()


def with_constants(block: Block, changed: Callable[[Constant], Constant]) -> Block:
    """The block with ``changed`` constants, in the order of :func:`constants_in`."""

    def argument(one: Argument) -> Argument:
        return changed(one) if isinstance(one, Constant) else one

    def operation(one: Operation) -> Operation:
        inputs = {name: tuple(map(argument, given)) for name, given in one.inputs.items()}
        blocks = tuple(with_constants(inner, changed) for inner in one.blocks)
        attributes = {name: changed(value) for name, value in one.attributes.items()}
        return replace(one, inputs=inputs, blocks=blocks, attributes=attributes)

    return replace(block, operations=tuple(map(operation, block.operations)))


def storage_key(constant: Constant) -> Hashable:
    """Equal for constants that are the same memory, or the same tensor, in the same type: for one blob."""
    value = constant.content
    if isinstance(value, np.ndarray) and value.nbytes:
        return constant.type.dtype, value.__array_interface__["data"][0], value.nbytes, value.strides
    return id(value)


def types_in(block: Block) -> dict[str, ValueType]:
    """The declared type of each value of a block, by name; nested blocks are not looked into."""
    types = {variable.name: variable.type for variable in block.inputs}
    for operation in block.operations:
        types |= {variable.name: variable.type for variable in operation.outputs}
    return types


def output_types(program: Program) -> dict[str, ValueType]:
    """The declared type of each value that the default function returns, by name."""
    types = types_in(program.main.body)
    return {name: types[name] for name in program.main.outputs}


def with_operations(program: Program, operations: Iterable[Operation]) -> Program:
    """``program`` with other operations in its default function."""
    body = replace(program.main.body, operations=tuple(operations))
    main = replace(program.main, body=body)
    return replace(program, functions={**program.functions, program.default_function: main})
