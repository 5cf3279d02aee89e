"""Static single assignment and the declared types of constants, checked once so that engines rely on them."""

from __future__ import annotations

from collections.abc import Iterable

from sd_mil.errors import PackageError
from sd_mil.ir.limits import check_declared
from sd_mil.ir.program import Block, Operation, Program, Reference
from sd_mil.ir.uses import constant_of


def check_scopes(program: Program) -> None:
    """Every name is defined once, before its first use; every block returns names that it can see.

    Raises:
        PackageError: a duplicate or undefined name, or a constant that is not what it declares, said with the
            operation that has it.
    """
    for function in program.functions.values():
        _check_block(function.body, frozenset(), f"function {function.name!r}")


def _check_block(block: Block, outer: Iterable[str], where: str) -> None:
    seen = set(outer)
    for variable in block.inputs:
        check_declared(variable.type, variable.name)
    _define(seen, (variable.name for variable in block.inputs), where)
    for operation in block.operations:
        _check_operation(operation, seen)
        if operation.type == "const":
            _check_constant(operation)
        for variable in operation.outputs:
            check_declared(variable.type, variable.name)
        _define(
            seen, (variable.name for variable in operation.outputs), f"{operation.type} {operation.name!r}"
        )
    for name in block.outputs:
        if name not in seen:
            raise PackageError(f"expected {where} to return a value that it defines, got {name!r}")


def _check_operation(operation: Operation, seen: set[str]) -> None:
    where = f"{operation.type} {operation.name!r}"
    for parameter, arguments in operation.inputs.items():
        for argument in arguments:
            if isinstance(argument, Reference) and argument.name not in seen:
                raise PackageError(
                    f"expected values defined before {where}, got {argument.name!r} for {parameter!r}"
                )
    for block in operation.blocks:
        _check_block(block, seen, where)


def _check_constant(operation: Operation) -> None:
    value = constant_of(operation)
    declared = tuple(variable.type for variable in operation.outputs)
    if value is None or declared != (value.type,):
        got = "none" if value is None else str(value.type)
        raise PackageError(
            f"expected const {operation.name!r} to hold one value of its type "
            f"({', '.join(map(str, declared))}), got {got}"
        )


def _define(seen: set[str], names: Iterable[str], where: str) -> None:
    for name in names:
        if name in seen:
            raise PackageError(f"expected a new name for each value, got {name!r} again in {where}")
        seen.add(name)
