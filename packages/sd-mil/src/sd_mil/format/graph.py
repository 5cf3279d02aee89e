"""``Program``, ``Function``, ``Block`` and ``Operation`` of MIL.proto."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.values import read_attributes, read_type, read_value
from sd_mil.format.weights import WeightStore
from sd_mil.format.wire import Message
from sd_mil.ir.program import Argument, Block, Constant, Function, Operation, Program, Reference, Variable

PROGRAM_VERSION = 1
#: The fields that are read of each message of MIL.proto.
_PROGRAM = frozenset({1, 2, 4})
_FUNCTION = _BLOCK = frozenset({1, 2, 3, 4})
_OPERATION = frozenset({1, 2, 3, 4, 5})
_VARIABLE = frozenset({1, 2})
_ARGUMENT = frozenset({1})
#: Bytes of an argument that is worth remembering.
_SHORT = 256


def read_program(message: Message, default_function: str, weights: WeightStore) -> Program:
    """The whole program.

    Raises:
        PackageError: malformed, or the default function is missing.
        UnsupportedModelError: a program version or value type that is not known.
    """
    version = message.signed(1)
    if version != PROGRAM_VERSION:
        raise UnsupportedModelError(f"expected an ML Program of version {PROGRAM_VERSION}, got {version}")
    functions = {name: _function(name, body, weights) for name, body in message.entries(2)}
    if default_function not in functions:
        raise PackageError(f"expected a function {default_function!r}, got {sorted(functions)}")
    attributes = read_attributes(message.entries(4), "the program", weights)
    return Program(functions, default_function, attributes, message.unknown(_PROGRAM))


def _function(name: str, message: Message, weights: WeightStore) -> Function:
    opset = message.text(2)
    bodies = dict(message.entries(3))
    if opset not in bodies:
        raise PackageError(
            f"expected function {name!r} to have a body for opset {opset!r}, got {sorted(bodies)}"
        )
    body = _block(bodies[opset], weights)
    if body.inputs:
        raise PackageError(f"expected function {name!r} to declare its inputs outside its body, got both")
    inputs = _variables(message.messages(1))
    attributes = read_attributes(message.entries(4), f"function {name!r}", weights)
    others = {key: _block(other, weights) for key, other in bodies.items() if key != opset}
    unknown = message.unknown(_FUNCTION)
    return Function(name, opset, replace(body, inputs=inputs), attributes, others, unknown)


def _block(message: Message, weights: WeightStore) -> Block:
    return Block(
        inputs=_variables(message.messages(1)),
        operations=tuple(_operation(operation, weights) for operation in message.messages(3)),
        outputs=message.texts(2),
        attributes=read_attributes(message.entries(4), "a block", weights),
        unknown=message.unknown(_BLOCK),
    )


def _operation(message: Message, weights: WeightStore) -> Operation:
    kind = message.text(1)
    outputs = _variables(message.messages(3))
    where = f"{kind} {', '.join(output.name for output in outputs)!r}"
    attributes = read_attributes(message.entries(5), where, weights)
    return Operation(
        type=kind,
        name=operation_name(attributes, outputs),
        inputs=_inputs(message, where, weights),
        outputs=outputs,
        attributes=attributes,
        blocks=tuple(_block(block, weights) for block in message.messages(4)),
        unknown=message.unknown(_OPERATION),
    )


def operation_name(attributes: Mapping[str, Constant], outputs: tuple[Variable, ...]) -> str:
    """The attribute, or the names of the outputs where it is missing."""
    name = attributes["name"].value if "name" in attributes else ""
    return name if isinstance(name, str) and name else ", ".join(output.name for output in outputs)


def _inputs(message: Message, where: str, weights: WeightStore) -> dict[str, tuple[Argument, ...]]:
    inputs: dict[str, tuple[Argument, ...]] = {}
    for encoded in message.encoded(2):
        known = _short_reference(encoded) if len(encoded) <= _SHORT else None
        if known is None or known[0] in inputs:
            return _checked_inputs(message, where, weights)
        inputs[known[0]] = known[1:]
    return inputs


def _checked_inputs(message: Message, where: str, weights: WeightStore) -> dict[str, tuple[Argument, ...]]:
    """As :func:`_inputs`, with values, and with places in what is said of errors."""
    inputs = {}
    for parameter, bound in message.entries(2):
        place = f"{where}.{parameter}"
        bindings = bound.refuse_unknown(_ARGUMENT, "Argument", place).messages(1)
        inputs[parameter] = tuple(_argument(binding, place, weights) for binding in bindings)
    return inputs


@lru_cache(maxsize=1 << 14)
def _short_reference(encoded: bytes) -> tuple[str, Reference] | None:
    """Parameter and argument of an entry that is nothing else: most are, and most come many times."""
    try:
        entry = Message(encoded)
        bound = entry.message(2) or Message(b"")
        (binding,) = bound.messages(1)
        known = entry.numbers() == (1, 2) and bound.numbers() == binding.numbers() == (1,)
        return (entry.text(1), Reference(binding.text(1))) if known else None
    except (PackageError, ValueError):
        return None  # said by who reads it with its place


def _argument(binding: Message, where: str, weights: WeightStore) -> Argument:
    if len(binding.numbers()) != 1:
        raise PackageError(f"expected a name or a value for {where}, got fields {binding.numbers()}")
    value = binding.message(2)
    return Reference(binding.text(1)) if value is None else read_value(value, where, weights)


def _variables(messages: list[Message]) -> tuple[Variable, ...]:
    return tuple(_variable(message) for message in messages)


def _variable(message: Message) -> Variable:
    name = message.text(1)
    if not name:
        raise PackageError(f"expected a name for the value at byte {message.offset}, got none")
    message.refuse_unknown(_VARIABLE, "NamedValueType", repr(name))
    return Variable(name, read_type(message, 2, repr(name)))
