"""How much memory a function takes, from its types alone."""

from __future__ import annotations

from sd_mil.constexpr import is_compressed
from sd_mil.ir.dtypes import stored_bytes
from sd_mil.ir.program import Block, TensorType, ValueType
from sd_mil.ir.uses import names_used, types_in


def activation_bytes(block: Block) -> int:
    """The most that values of a block take at once, each kept from when it is computed until it is last read.

    An engine that fuses operations takes less; sizes that are not known count as 1.
    """
    types = types_in(block)
    last = {name: index for index, one in enumerate(block.operations) for name in names_used(one)}
    last |= dict.fromkeys(block.outputs, len(block.operations))
    ending: dict[int, int] = {}
    constant = {
        output.name
        for one in block.operations
        if one.type == "const" or is_compressed(one.type)
        for output in one.outputs
    }
    alive = largest = sum(_bytes(variable.type) for variable in block.inputs)
    for index, operation in enumerate(block.operations):
        for output in operation.outputs:
            if output.name not in constant:
                size = _bytes(types[output.name])
                alive += size
                end = last.get(output.name, index)
                ending[end] = ending.get(end, 0) + size
        largest = max(largest, alive)
        alive -= ending.pop(index, 0)
    return largest


def decoded_bytes(block: Block) -> int:
    """What the constants that layers read take, once they are decoded."""
    read = {name for one in block.operations if not is_compressed(one.type) for name in names_used(one)}
    return sum(
        _bytes(output.type)
        for one in block.operations
        if one.type == "const" or is_compressed(one.type)
        for output in one.outputs
        if output.name in read
    )


def _bytes(kind: ValueType) -> int:
    if not isinstance(kind, TensorType) or kind.dtype == "string":
        return 0
    return stored_bytes(kind.dtype, tuple(size or 1 for size in kind.shape))
