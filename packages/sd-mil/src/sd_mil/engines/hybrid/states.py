"""States as values: what a run reads becomes an input, what it leaves behind an output.

::

    y = read_state(input=cache)             y = identity(x=cache)
    write_state(input=cache, data=z)   ->   (cache is z from here on)
    return y                                return y, z
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace

from sd_mil.errors import PackageError
from sd_mil.ir.program import (
    Argument,
    Block,
    Constant,
    Function,
    Operation,
    Program,
    Reference,
    StateType,
    Variable,
)
from sd_mil.ir.uses import names_used

_OPERATIONS = {"read_state": ("input", None), "write_state": ("input", "data")}
_OPERATIONS["coreml_update_state"] = ("state", "value")


def states_as_values(program: Program) -> tuple[Program, Mapping[str, str]]:
    """The program without states, and for each state that it wrote, the output that is its new value.

    States that nested blocks use stay states. The program itself comes back when it has none.

    Raises:
        PackageError: a state operation lacks a parameter.
    """
    function = program.main
    states = _rewritable(function.body)
    if not states:
        return program, {}
    current = {name: name for name in states}
    operations = tuple(_rewrite(function.body.operations, current))
    finals = {name: left for name, left in current.items() if left != name}
    inputs = tuple(_as_value(one) if one.name in states else one for one in function.inputs)
    outputs = (*function.outputs, *sorted(set(finals.values()) - set(function.outputs)))
    made = replace(function, body=Block(inputs, operations, outputs))
    return _with(program, made), finals


def _rewritable(body: Block) -> frozenset[str]:
    states = {one.name for one in body.inputs if isinstance(one.type, StateType)}
    nested = {name for operation in body.operations for name in _used_inside(operation)}
    return frozenset(states - nested)


def _used_inside(operation: Operation) -> Iterable[str]:
    return (name for block in operation.blocks for inner in block.operations for name in names_used(inner))


def _rewrite(operations: Iterable[Operation], current: dict[str, str]) -> Iterator[Operation]:
    """The operations without those on states; ``current`` has the name of the value that each state holds."""
    for operation in operations:
        state = _state_of(operation)
        if state not in current:
            yield operation
            continue
        written = _OPERATIONS[operation.type][1]
        if written is not None:
            value = _argument(operation, written)
            if isinstance(value, Constant):
                value = yield from _named(value, operation)
            current[state] = value.name
        if operation.outputs:
            inputs = {"x": (Reference(current[state]),)}
            yield replace(operation, type="identity", inputs=inputs, attributes={})


def _state_of(operation: Operation) -> str:
    if operation.type not in _OPERATIONS:
        return ""
    argument = _argument(operation, _OPERATIONS[operation.type][0])
    return argument.name if isinstance(argument, Reference) else ""


def _named(value: Constant, operation: Operation) -> Generator[Operation, None, Reference]:
    """A constant that is written gets a name, because outputs are names."""
    name = f"{operation.name}_{operation.type}"
    yield Operation("const", name, {}, (Variable(name, value.type),), {"val": value})
    return Reference(name)


def _argument(operation: Operation, parameter: str) -> Argument:
    given = operation.inputs.get(parameter, ())
    if len(given) != 1:
        raise PackageError(f"expected one {parameter!r} of {operation.type} {operation.name!r}")
    return given[0]


def _as_value(variable: Variable) -> Variable:
    kind = variable.type
    return Variable(variable.name, kind.tensor) if isinstance(kind, StateType) else variable


def _with(program: Program, function: Function) -> Program:
    return replace(program, functions={**program.functions, program.default_function: function})
