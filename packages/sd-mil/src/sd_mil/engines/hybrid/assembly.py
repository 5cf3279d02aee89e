"""Blocks of a program made into parts: segments compiled, control flow around what is worth compiling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from sd_mil.constexpr import decode
from sd_mil.engines import reference
from sd_mil.engines.hybrid.backend import Backend
from sd_mil.engines.hybrid.partition import is_constant, partition
from sd_mil.engines.hybrid.parts import Branch, Chain, Loop, NativePart, NumpyPart, Part
from sd_mil.engines.reference.payload import dense
from sd_mil.errors import PackageError, UnsupportedOpError
from sd_mil.ir.program import (
    Argument,
    Block,
    Constant,
    Function,
    Operation,
    Program,
    Reference,
    StateType,
    TensorType,
    ValueType,
    Variable,
)
from sd_mil.ir.uses import captured, constant_of, names_used

#: Operations that make a block worth compiling: each call of a compiled block costs as much as several
#: operations in numpy.
_HEAVY = {"conv", "conv_transpose", "gru", "linear", "lstm", "matmul", "rnn", "scaled_dot_product_attention"}


@dataclass(frozen=True)
class Outer:
    """What a block sees of the scopes around it: operations that define constants, and types, by name."""

    constants: Mapping[str, Operation]
    types: Mapping[str, ValueType]

    def inside(self, block: Block) -> Outer:
        """With what the block itself defines."""
        types, constants = {one.name: one.type for one in block.inputs}, {}
        for operation in block.operations:
            types.update({one.name: one.type for one in operation.outputs})
            if is_constant(operation):
                constants.update({one.name: operation for one in operation.outputs})
        return Outer({**self.constants, **constants}, {**self.types, **types})

    def constants_for(self, operations: Iterable[Operation]) -> tuple[Operation, ...]:
        """The operations that define the constants that these use, in order."""
        found: dict[int, Operation] = {}
        waiting = [name for operation in operations for name in names_used(operation)]
        while waiting:
            operation = self.constants.get(waiting.pop())
            if operation is not None and id(operation) not in found:
                found[id(operation)] = operation
                waiting.extend(names_used(operation))
        return tuple({id(one): one for one in self.constants.values() if id(one) in found}.values())


def assemble(block: Block, *, backend: Backend, outer: Outer | None = None) -> Chain:
    """The block in parts, each compiled.

    Raises:
        UnsupportedOpError: an operation that neither engine knows.
        PackageError: the block contradicts itself.
    """
    scope = (outer or Outer({}, {})).inside(block)
    pieces = list(_pieces(block, scope, backend))
    fixed = {name: _value(name, scope) for name in block.outputs if name in scope.constants}
    parts, releases = [], []
    needed = set(block.outputs)
    for kind, operations in reversed(pieces):
        part = _part(kind, operations, needed, scope, backend, fixed)
        if part is not None:
            parts.append(part)
            releases.append(part.uses - needed)
            needed |= part.uses
    inputs = tuple(one.name for one in block.inputs)
    return Chain(tuple(reversed(parts)), inputs, block.outputs, fixed, tuple(reversed(releases)))


def _pieces(block: Block, scope: Outer, backend: Backend) -> Iterator[tuple[str, tuple[Operation, ...]]]:
    """The segments, with control flow that is worth compiling apart."""
    own = {id(operation) for operation in block.operations}
    outside = [one for one in scope.constants_for(block.operations) if id(one) not in own]
    operations = (*outside, *block.operations)
    free = [Variable(name, scope.types[name]) for name in sorted(captured(block) - scope.constants.keys())]
    in_numpy = backend.refused((*block.inputs, *free), operations, scope.types)
    for segment in partition(operations, in_numpy, scope.types):
        if segment.native:
            yield "native", segment.operations
            continue
        for heavy, group in groupby(segment.operations, key=_is_worth_compiling):
            if heavy:
                yield from ((operation.type, (operation,)) for operation in group)
            else:
                yield "numpy", tuple(group)


def _is_worth_compiling(operation: Operation) -> bool:
    if operation.type not in ("cond", "while_loop") or len(operation.blocks) != 2:
        return False
    inner = [one for block in operation.blocks for one in block.operations]
    return any(one.type in _HEAVY or _is_worth_compiling(one) for one in inner)


def _part(
    kind: str,
    operations: tuple[Operation, ...],
    needed: Set[str],
    scope: Outer,
    backend: Backend,
    fixed: dict[str, Any],
) -> Part | None:
    """The operations ready to run; None when nothing needs what they compute."""
    defined = {variable.name for operation in operations for variable in operation.outputs}
    wanted = tuple(sorted(defined & needed))
    used = frozenset[str]().union(*map(names_used, operations)) - defined
    uses = used - scope.constants.keys()
    if not wanted and not any(isinstance(scope.types[name], StateType) for name in uses):
        return None
    if kind == "native":
        try:
            return _native(operations, uses, wanted, scope, backend)
        except UnsupportedOpError:  # a pass made of them what has no translation here
            kind = "numpy"
    if kind == "numpy":
        return _in_numpy(operations, wanted, scope)
    (operation,) = operations
    blocks = [assemble(block, backend=backend, outer=scope) for block in operation.blocks]
    arguments = _arguments(operation, scope, fixed)
    outputs = tuple(variable.name for variable in operation.outputs)
    if kind == "cond":
        return Branch(arguments[0], (blocks[0], blocks[1]), outputs, uses)
    return Loop(arguments, blocks[0], blocks[1], outputs, uses)


def _native(
    operations: tuple[Operation, ...],
    uses: frozenset[str],
    wanted: tuple[str, ...],
    scope: Outer,
    backend: Backend,
) -> NativePart:
    """What crosses to other parts is declared in the type it is computed in, so that nothing rounds it."""
    inputs = tuple(_computed(Variable(name, scope.types[name]), backend) for name in sorted(uses))
    widened = (
        replace(
            one, outputs=tuple(_computed(out, backend) if out.name in wanted else out for out in one.outputs)
        )
        for one in operations
    )
    block = Block(inputs, (*scope.constants_for(operations), *widened), wanted)
    program = Program({"main": Function("main", "", block)})
    return NativePart(uses, backend.compile(program))


def _computed(variable: Variable, backend: Backend) -> Variable:
    if not isinstance(variable.type, TensorType):
        raise PackageError(f"expected a tensor, got {variable.type} for {variable.name!r}")
    return Variable(variable.name, backend.computed_type(variable.type, where=repr(variable.name)))


def _in_numpy(operations: tuple[Operation, ...], wanted: tuple[str, ...], scope: Outer) -> NumpyPart:
    block = Block((), (*scope.constants_for(operations), *operations), wanted)
    try:
        return NumpyPart(reference.compile_block(block), frozenset(_types(operations)))
    except UnsupportedOpError as error:
        raise UnsupportedOpError(f"the backend does not run it, and {error}") from error


def _types(operations: Iterable[Operation]) -> Iterator[str]:
    for operation in operations:
        if not is_constant(operation):
            yield operation.type
        for block in operation.blocks:
            yield from _types(block.operations)


def _arguments(operation: Operation, scope: Outer, fixed: dict[str, Any]) -> tuple[str, ...]:
    """The names of the predicate, or of the loop variables; constants among them are added to ``fixed``."""
    given = operation.inputs.get("pred" if operation.type == "cond" else "loop_vars", ())
    names = []
    for position, argument in enumerate(given):
        name = argument.name if isinstance(argument, Reference) else f"{operation.name}[{position}]"
        names.append(name)
        if isinstance(argument, Constant):
            fixed[name] = dense(argument)
        elif name in scope.constants:
            fixed[name] = _value(name, scope)
    if not names:
        raise PackageError(f"expected a predicate or loop variables of {operation.type} {operation.name!r}")
    return tuple(names)


def _value(name: str, scope: Outer) -> Any:
    return dense(_constant(Reference(name), scope))


def _constant(argument: Argument, scope: Outer) -> Constant:
    if isinstance(argument, Constant):
        return argument
    operation = scope.constants[argument.name]
    value = constant_of(operation)
    if value is not None:
        return value
    return decode(operation, lambda one: _constant(one, scope))[argument.name]
