"""From MIL's text to a program: functions, blocks and operations."""

from __future__ import annotations

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.graph import operation_name
from sd_mil.format.text.tokens import Tokens
from sd_mil.format.text.types import parse_type
from sd_mil.format.text.values import parse_value
from sd_mil.format.weights import WeightStore
from sd_mil.ir.program import Argument, Block, Constant, Function, Operation, Program, Reference, Variable
from sd_mil.ir.targets import OPSETS

#: coremltools' names of the opsets, by the text's.
_OPSETS = {target.opset.lower(): core_ml for core_ml, target in OPSETS.items()}
_MAX_DEPTH = 64


def parse_program(text: str, weights: WeightStore, *, default_function: str = "main") -> Program:
    """The program of a ``model.mil``, in either dialect.

    Raises:
        PackageError: malformed, with the line.
        UnsupportedModelError: a program version, opset or value type that is not known.
    """
    tokens = Tokens(text)
    tokens.expect("program", "(")
    version = tokens.next()
    if not version.startswith("1."):
        raise UnsupportedModelError(f"expected a program of version 1, got {version[:40]}")
    tokens.expect(")")
    _skip_attributes(tokens)
    tokens.expect("{")
    functions: dict[str, Function] = {}
    while not tokens.accept("}"):
        function = _function(tokens, weights)
        if function.name in functions:
            raise tokens.error(f"a new name instead of {function.name!r} for the function before")
        functions[function.name] = function
    if tokens.peek():
        raise tokens.error("the end of the program")
    if default_function not in functions:
        raise PackageError(f"expected a function {default_function!r}, got {sorted(functions)}")
    return Program(functions, default_function)


def _skip_attributes(tokens: Tokens) -> None:
    """Attributes of programs and functions say nothing that the description does not."""
    if tokens.peek() == "[":
        tokens.skip_brackets("[", "]")


def _function(tokens: Tokens, weights: WeightStore) -> Function:
    tokens.expect("func")
    name = tokens.name()
    tokens.expect("<")
    opset = tokens.name()
    if opset.lower() not in _OPSETS:
        raise UnsupportedModelError(f"expected one of {', '.join(_OPSETS)} for {name!r}, got {opset[:40]}")
    tokens.expect(">")
    inputs = _inputs(tokens)
    _skip_attributes(tokens)
    body = _block(tokens, inputs, weights, 0)
    tokens.accept(";")
    return Function(name, _OPSETS[opset.lower()], body)


def _inputs(tokens: Tokens) -> tuple[Variable, ...]:
    tokens.expect("(")
    inputs: list[Variable] = []
    while not tokens.accept(")"):
        if inputs:
            tokens.expect(",")
        inputs.append(_variable(tokens))
    return tuple(inputs)


def _variable(tokens: Tokens) -> Variable:
    kind = parse_type(tokens)
    return Variable(tokens.name(), kind)


def _block(tokens: Tokens, inputs: tuple[Variable, ...], weights: WeightStore, depth: int) -> Block:
    if depth > _MAX_DEPTH:
        raise tokens.error(f"at most {_MAX_DEPTH} nested blocks before")
    tokens.expect("{")
    operations: list[Operation] = []
    while not tokens.accept("}"):
        operations.append(_operation(tokens, weights, depth))
    tokens.expect("->")
    return Block(inputs, tuple(operations), _names(tokens))


def _names(tokens: Tokens) -> tuple[str, ...]:
    tokens.expect("(")
    names: list[str] = []
    while not tokens.accept(")"):
        if names:
            tokens.expect(",")
        names.append(tokens.name())
    return tuple(names)


def _operation(tokens: Tokens, weights: WeightStore, depth: int) -> Operation:
    outputs = _outputs(tokens)
    kind = tokens.name()
    where = f"{kind} {', '.join(output.name for output in outputs)!r}"
    inputs = _arguments(tokens, where, weights)
    attributes = _attributes(tokens, where, weights)
    blocks = _blocks(tokens, weights, depth + 1)
    if not blocks:
        tokens.expect(";")
    return Operation(kind, operation_name(attributes, outputs), inputs, outputs, attributes, blocks)


def _outputs(tokens: Tokens) -> tuple[Variable, ...]:
    """What stands before the ``=``; an operation that returns nothing begins with its type."""
    if tokens.peek(1) == "(":
        return ()
    outputs = [_variable(tokens)]
    while tokens.accept(","):
        outputs.append(_variable(tokens))
    tokens.expect("=")
    return tuple(outputs)


def _arguments(tokens: Tokens, where: str, weights: WeightStore) -> dict[str, tuple[Argument, ...]]:
    arguments: dict[str, tuple[Argument, ...]] = {}
    tokens.expect("(")
    while not tokens.accept(")"):
        if arguments:
            tokens.expect(",")
        name = _new_name(tokens, arguments, where)
        variadic = tokens.peek() == "("
        argument = f"{where}.{name}"
        arguments[name] = (
            _several(tokens, argument, weights) if variadic else (_argument(tokens, argument, weights),)
        )
    return arguments


def _several(tokens: Tokens, where: str, weights: WeightStore) -> tuple[Argument, ...]:
    arguments: list[Argument] = []
    tokens.expect("(")
    while not tokens.accept(")"):
        if arguments:
            tokens.expect(",")
        arguments.append(_argument(tokens, where, weights))
    return tuple(arguments)


def _argument(tokens: Tokens, where: str, weights: WeightStore) -> Argument:
    if tokens.peek(1) in ("(", "<"):
        return parse_value(tokens, where, weights)
    return Reference(tokens.name())


def _attributes(tokens: Tokens, where: str, weights: WeightStore) -> dict[str, Constant]:
    attributes: dict[str, Constant] = {}
    if not tokens.accept("["):
        return attributes
    while not tokens.accept("]"):
        if attributes:
            tokens.expect(",")
        name = _new_name(tokens, attributes, where)
        attributes[name] = parse_value(tokens, f"{where}.{name}", weights)
    return attributes


def _new_name(
    tokens: Tokens, known: dict[str, tuple[Argument, ...]] | dict[str, Constant], where: str
) -> str:
    name = tokens.name()
    if name in known:
        raise PackageError(f"expected each parameter of {where} once, got {name!r} again")
    tokens.expect("=")
    return name


def _blocks(tokens: Tokens, weights: WeightStore, depth: int) -> tuple[Block, ...]:
    """Nested blocks of control flow: ``name(inputs) { ... } -> (outputs);``, the name being optional."""
    blocks: list[Block] = []
    while _is_block(tokens):
        if tokens.peek() not in ("(", "{"):
            tokens.next()
        inputs = _inputs(tokens) if tokens.peek() == "(" else ()
        blocks.append(_block(tokens, inputs, weights, depth))
        tokens.accept(",")
        tokens.accept(";")
    return tuple(blocks)


def _is_block(tokens: Tokens) -> bool:
    return tokens.peek() in ("(", "{") or (tokens.peek().startswith("block") and tokens.peek(1) in ("(", "{"))
