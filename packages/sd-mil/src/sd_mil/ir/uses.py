"""Which values an operation uses, nested blocks included."""

from __future__ import annotations

from collections.abc import Iterator

from sd_mil.ir.program import Block, Operation, Reference


def names_used(operation: Operation) -> frozenset[str]:
    """Every name that the operation or one of its nested blocks takes from outside."""
    return frozenset(_references(operation)).union(*map(free_names, operation.blocks))


def free_names(block: Block) -> frozenset[str]:
    """The names that a block uses without defining them."""
    used, defined = set(block.outputs), {variable.name for variable in block.inputs}
    for operation in block.operations:
        used |= names_used(operation)
        defined |= {variable.name for variable in operation.outputs}
    return frozenset(used - defined)


def _references(operation: Operation) -> Iterator[str]:
    for arguments in operation.inputs.values():
        yield from (one.name for one in arguments if isinstance(one, Reference))
