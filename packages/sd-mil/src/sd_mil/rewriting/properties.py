"""What passes require and ensure."""

from __future__ import annotations

from collections.abc import Iterator

from sd_mil.constexpr import is_compressed
from sd_mil.ir.dtypes import SUB_BYTE_BITS
from sd_mil.ir.program import Block, Operation, Program, TensorType
from sd_mil.ir.uses import constants_of, live_operations, names_used, operand
from sd_mil.rewriting.moves import needless_casts
from sd_mil.rewriting.passes import Property
from sd_mil.rewriting.scores import LARGEST_BATCH, attentions, batch_of, is_rank_3, is_reshaped

_FLOATS = frozenset({"fp16", "fp32"})
_RESHAPES = frozenset({"expand_dims", "reshape", "squeeze", "transpose"})


def _is_in_order(program: Program) -> bool:
    return _is_block_in_order(program.main.body, frozenset())


def _is_block_in_order(block: Block, outside: frozenset[str]) -> bool:
    defined = set(outside)
    for name in (variable.name for variable in block.inputs):
        if name in defined:
            return False
        defined.add(name)
    for operation in block.operations:
        names = {variable.name for variable in operation.outputs}
        if not names_used(operation) <= defined or names & defined or len(names) != len(operation.outputs):
            return False
        if not all(_is_block_in_order(inner, frozenset(defined)) for inner in operation.blocks):
            return False
        defined |= names
    return defined.issuperset(block.outputs)


def _is_decoded(program: Program) -> bool:
    """Packed types aside, which only an operation that reads packed bits can take."""
    body = program.main.body
    decoded = {
        one.name
        for operation in body.operations
        if is_compressed(operation.type)
        for one in operation.outputs
        if isinstance(one.type, TensorType) and one.type.dtype not in SUB_BYTE_BITS
    }
    read = (names_used(one) for one in body.operations if not is_compressed(one.type))
    return decoded.isdisjoint(body.outputs) and all(map(decoded.isdisjoint, read))


def _reads_no_cast(program: Program) -> bool:
    casts = {one.outputs[0].name for one in _float_casts(program)}
    return all(casts.isdisjoint(names_used(one)) for one in program.main.body.operations if not one.blocks)


def _float_casts(program: Program) -> Iterator[Operation]:
    body = program.main.body
    defined = (*body.inputs, *(one for operation in body.operations for one in operation.outputs))
    dtypes = {one.name: one.type.dtype for one in defined}
    for operation in body.operations:
        if operation.type == "cast":
            both = {operation.outputs[0].type.dtype, dtypes.get(operand(operation, "x"), "")}
            if both <= _FLOATS:
                yield operation


def _is_folded(program: Program) -> bool:
    operations = program.main.body.operations
    floats = {name for name, value in constants_of(operations).items() if value.type.dtype in _FLOATS}
    return not any(
        operation.type in _RESHAPES
        and operand(operation, "x") in floats
        and None not in operation.outputs[0].type.shape
        for operation in operations
    )


def _is_live(program: Program) -> bool:
    return len(live_operations(program.main.body)) == len(program.main.body.operations)


def _has_no_rank_3_attention(program: Program) -> bool:
    return not any(map(is_rank_3, attentions(program.main.body)))


def _has_small_batches(program: Program) -> bool:
    found = (one for one in attentions(program.main.body) if not is_reshaped(one))
    return all(batch_of(one) <= LARGEST_BATCH for one in found)


def _has_no_needless_cast(program: Program) -> bool:
    return not any(needless_casts(program.main.body))


#: Of every program that a reader lets through, and that an engine may be given.
IN_ORDER = Property("every value is defined once, and before it is used", _is_in_order)
DECODED = Property("no layer reads a weight that is still compressed", _is_decoded)
CASTS_UNREAD = Property("no operation without blocks reads a cast between float types", _reads_no_cast)
FOLDED = Property("no weight is transposed or reshaped before it is used", _is_folded)
LIVE = Property("every operation has an effect, or something needs what it computes", _is_live)
RANK_4_ATTENTION = Property("no attention is of rank 3", _has_no_rank_3_attention)
SMALL_ATTENTION_BATCH = Property(
    f"no attention without a reshape in it is over more than {LARGEST_BATCH} samples", _has_small_batches
)
NO_NEEDLESS_CASTS = Property("nothing is cast to fp32, only moved, and cast back", _has_no_needless_cast)
