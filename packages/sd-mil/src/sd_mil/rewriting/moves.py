"""What is moved without being computed, and casts that it hides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sd_mil.ir.program import Block, Operation, ValueType
from sd_mil.ir.uses import names_used, operand, types_in

#: Operations that move the elements of ``x`` and change none.
MOVES = frozenset(
    {
        "depth_to_space",
        "expand_dims",
        "flatten2d",
        "identity",
        "pixel_shuffle",
        "reshape",
        "reverse",
        "slice_by_index",
        "slice_by_size",
        "space_to_depth",
        "squeeze",
        "tile",
        "transpose",
    }
)


def casts(operation: Operation, types: Mapping[str, ValueType]) -> tuple[str, str] | None:
    """From which dtype to which an operation casts; None of others."""
    source = types.get(operand(operation, "x"))
    return (source.dtype, operation.outputs[0].type.dtype) if operation.type == "cast" and source else None


def needless_casts(block: Block) -> Iterator[Operation]:
    """Casts to fp16 of what was fp16 before, and only moved since; not those that nested blocks read."""
    types = types_in(block)
    producers: dict[str, Operation] = {}
    nested = {name for one in block.operations if one.blocks for name in names_used(one)}
    for operation in block.operations:
        producers |= {output.name: operation for output in operation.outputs}
        if casts(operation, types) != ("fp32", "fp16") or operation.outputs[0].name in nested:
            continue
        source = producers.get(operand(operation, "x"))
        while source is not None and source.type in MOVES:
            source = producers.get(operand(source, "x"))
        if source is not None and casts(source, types) == ("fp16", "fp32"):
            yield operation
