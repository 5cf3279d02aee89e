"""Whole-head attention out of SPLIT_EINSUM's one-head-at-a-time form."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sd_mil.ir.program import Operation, Program
from sd_mil.rewriting.attention import Attention, rewrite_attention, unscaled
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import CASTS_UNREAD, FOLDED, IN_ORDER
from sd_mil.rewriting.scores import SCORES, VALUES
from sd_mil.rewriting.views import Definitions, View, join


@dataclass(frozen=True, slots=True)
class _Piece:
    """One head's attention for one range of queries. Axes of the views are (batch, channel, 1, position)."""

    query: View
    key: View
    value: View
    scale: float


@rewrites(requires=(IN_ORDER, CASTS_UNREAD, FOLDED), ensures=(IN_ORDER, CASTS_UNREAD, FOLDED))
def merge_heads(program: Program) -> Program:
    """Compute all heads of an attention at once.

    Given, for each head i of ``heads`` (and each range of queries, in SPLIT_EINSUM_V2)::

        q_i = slice_by_index(q)  k_i = slice_by_index(transpose(k))  v_i = slice_by_index(v)
        w_i = softmax(mul(einsum("bkhc,bchq->bkhq", k_i, q_i), scale), axis=1)
        o_i = einsum("bchk,bkhq->bchq", v_i, w_i)
        y   = concat(o_0, o_1, ..., axis=1)

    Result::

        Q, K, V = transpose(reshape(transpose(·), [batch, positions, heads, width]), [0, 2, 1, 3])
        A       = scaled_dot_product_attention(mul(Q, scale·√width), K, V)
        rows    = reshape(transpose(A, [0, 2, 1, 3]), [batch, positions, 1, channels])
        y       = transpose(rows, [0, 3, 2, 1])

    The same products and sums, in fewer and larger operations. Attention with a mask, heads out of order and
    ranges with gaps are left alone.
    """
    return rewrite_attention(program, _match)


def _match(operation: Operation, definitions: Definitions) -> Attention | None:
    """The attention whose heads ``operation`` concatenates."""
    heads = _concatenated(operation, definitions, axis=1)
    pieces = [_head(name, definitions) for name in heads]
    known = [piece for piece in pieces if piece is not None]
    if not known or len(known) != len(pieces) or len({piece.scale for piece in known}) != 1:
        return None
    query = join([piece.query for piece in known], axis=1)
    key = join([piece.key for piece in known], axis=1)
    value = join([piece.value for piece in known], axis=1)
    if query is None or key is None or value is None:
        return None
    if not all(definitions.is_whole(view) and view.ranges[2] == (0, 1) for view in (query, key, value)):
        return None
    return Attention(query, key, value, len(known), known[0].scale)


def _head(name: str, definitions: Definitions) -> _Piece | None:
    """One head's attention: a product with values, or the concatenation of several over ranges of queries."""
    concat = definitions.producer(name, "concat")
    chunks = [name] if concat is None else _concatenated(concat, definitions, axis=3)
    pieces = [_piece(chunk, definitions) for chunk in chunks]
    known = [piece for piece in pieces if piece is not None]
    if not known or len(known) != len(pieces):
        return None
    if len({(piece.key, piece.value, piece.scale) for piece in known}) != 1:
        return None
    query = join([piece.query for piece in known], axis=3)
    return None if query is None else replace(known[0], query=query)


def _piece(name: str, definitions: Definitions) -> _Piece | None:
    """Follow ``einsum(value, softmax(scale · einsum(key, query)))`` upwards from its result."""
    values = _einsum_operands(name, VALUES, definitions)
    softmax = definitions.producer(values[1], "softmax") if values else None
    if values is None or softmax is None or definitions.ints(softmax, "axis") not in ([1], [-3]):
        return None
    scores, scale = unscaled(softmax, definitions)
    operands = _einsum_operands(scores, SCORES, definitions)
    if operands is None:
        return None
    key, query, value = (definitions.view(operand) for operand in (*operands, values[0]))
    if key is None or query is None or value is None:
        return None
    return _Piece(query, key.permuted((0, 3, 2, 1)), value, scale)


def _einsum_operands(name: str, equation: str, definitions: Definitions) -> tuple[str, str] | None:
    operation = definitions.producer(name, "einsum")
    if operation is None or str(definitions.constant(operation, "equation")).replace(" ", "") != equation:
        return None
    names = definitions.operands(operation, "values")
    return (names[0], names[1]) if len(names) == 2 else None


def _concatenated(operation: Operation, definitions: Definitions, *, axis: int) -> list[str]:
    """The values that ``operation`` joins along ``axis`` of four; none when it does something else."""
    if operation.type != "concat" or definitions.ints(operation, "axis") not in ([axis], [axis - 4]):
        return []
    return (
        [] if definitions.ints(operation, "interleave") == [1] else definitions.operands(operation, "values")
    )
