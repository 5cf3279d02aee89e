"""Attention over rows out of ORIGINAL's attention over columns."""

from __future__ import annotations

from sd_mil.ir.program import Operation, Program
from sd_mil.rewriting.attention import Attention, rewrite_attention, unscaled
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import CASTS_UNREAD, FOLDED, IN_ORDER
from sd_mil.rewriting.views import Definitions, View


@rewrites(requires=(IN_ORDER, CASTS_UNREAD, FOLDED), ensures=(IN_ORDER, CASTS_UNREAD, FOLDED))
def attend_over_rows(program: Program) -> Program:
    """Turn attention on columns into the layout that runs as one kernel.

    Given q, k, v of shape [batch, heads·width, 1, positions]::

        Q, K, V = reshape(·, [batch, heads, width, positions])
        W       = softmax(mul(matmul(Q, K, transpose_x=True), scale), axis=-1)
        y       = reshape(matmul(V, W, transpose_y=True), [batch, heads·width, 1, positions])

    Result: as of :func:`sd_mil.rewriting.merge_heads.merge_heads`.
    """
    return rewrite_attention(program, _match)


def _match(operation: Operation, definitions: Definitions) -> Attention | None:
    """The attention whose result ``operation`` reshapes."""
    if operation.type != "reshape":
        return None
    values = _matmul_operands(definitions.operand(operation, "x"), (False, True), definitions)
    softmax = definitions.producer(values[1], "softmax") if values else None
    if values is None or softmax is None or definitions.ints(softmax, "axis") not in ([-1], [3], None):
        return None
    scores, scale = unscaled(softmax, definitions)
    operands = _matmul_operands(scores, (True, False), definitions)
    if operands is None:
        return None
    query, key, value = (_columns(operand, definitions) for operand in (*operands, values[0]))
    heads = definitions.shapes[operands[0]][1]
    if query is None or key is None or value is None or heads is None:
        return None
    batch, _, _, positions = (end for _, end in query.ranges)
    expected = (batch, value.ranges[1][1], 1, positions)
    if definitions.shapes[operation.outputs[0].name] != expected:
        return None
    return Attention(query, key, value, heads, scale)


def _matmul_operands(
    name: str, transposes: tuple[bool, bool], definitions: Definitions
) -> tuple[str, str] | None:
    operation = definitions.producer(name, "matmul")
    if operation is None:
        return None
    given = tuple(definitions.ints(operation, flag) == [1] for flag in ("transpose_x", "transpose_y"))
    if given != transposes:
        return None
    return definitions.operand(operation, "x"), definitions.operand(operation, "y")


def _columns(name: str, definitions: Definitions) -> View | None:
    """What ``name`` [batch, heads, width, positions] was before, if [batch, heads·width, 1, positions]."""
    reshape = definitions.producer(name, "reshape")
    whole = definitions.whole(definitions.operand(reshape, "x")) if reshape else None
    if whole is None or len(whole.order) != 4 or len(definitions.shapes[name]) != 4:
        return None
    batch, heads, width, positions = definitions.shapes[name]
    channels = (heads or 0) * (width or 0)
    return whole if tuple(end for _, end in whole.ranges) == (batch, channels, 1, positions) else None
