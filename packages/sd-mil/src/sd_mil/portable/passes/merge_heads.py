"""Whole-head attention out of SPLIT_EINSUM's one-head-at-a-time form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sd_mil.portable.passes.views import Definitions, Range, View
from sd_mil.program import Constant, Operation, Program, Reference, TensorType, Variable

_SCORES, _VALUES = "bkhc,bchq->bkhq", "bchk,bkhq->bchq"


@dataclass(frozen=True, slots=True)
class _Piece:
    """One head's attention for one range of queries. Axes of the views are (batch, channel, 1, position)."""

    query: View
    key: View
    value: View
    scale: float


@dataclass(frozen=True, slots=True)
class _Attention:
    """All heads: which values hold query, key and value, [batch, heads·width, 1, positions] each."""

    query: View
    key: View
    value: View
    heads: int
    scale: float


def merge_heads(program: Program) -> Program:
    """Compute all heads of an attention at once.

    Given, for each head i of ``heads`` (and each range of queries, in SPLIT_EINSUM_V2)::

        q_i = slice_by_index(q)  k_i = slice_by_index(transpose(k))  v_i = slice_by_index(v)
        w_i = softmax(mul(einsum("bkhc,bchq->bkhq", k_i, q_i), scale), axis=1)
        o_i = einsum("bchk,bkhq->bchq", v_i, w_i)
        y   = concat(o_0, o_1, ..., axis=1)

    Result::

        Q, K, V = transpose(reshape(·, [batch, heads, width, positions]), [0, 1, 3, 2])
        y       = reshape(transpose(scaled_dot_product_attention(Q, K, V, scale), [0, 1, 3, 2]), y's shape)

    The same products and sums, in fewer and larger operations: at 64x64 latents, SD 1.5's largest attention
    takes 8 heads from 24 matrix products over strided slices to 2. Attention with a mask, heads out of order and
    ranges with gaps are left alone. What nothing uses any more is left for the translation to drop.
    """
    body = program.main.body
    definitions = Definitions.of(body)
    operations: list[Operation] = []
    for operation in body.operations:
        found = _match(operation, definitions)
        operations.extend([operation] if found is None else _whole_heads(operation, found, definitions))
    main = replace(program.main, body=replace(body, operations=tuple(operations)))
    return replace(program, functions={**program.functions, program.default_function: main})


def _match(operation: Operation, definitions: Definitions) -> _Attention | None:
    """The attention whose heads ``operation`` concatenates."""
    heads = _concatenated(operation, definitions, axis=1)
    if heads is None:
        return None
    pieces = [_head(name, definitions) for name in heads]
    known = [piece for piece in pieces if piece is not None]
    if len(known) != len(pieces) or len({piece.scale for piece in known}) != 1:
        return None
    joined = [_join([getattr(piece, part) for piece in known], axis=1) for part in ("query", "key", "value")]
    query, key, value = joined
    if query is None or key is None or value is None:
        return None
    whole = all(_is_whole(view, definitions) for view in (query, key, value))
    return _Attention(query, key, value, len(known), known[0].scale) if whole else None


def _head(name: str, definitions: Definitions) -> _Piece | None:
    """One head's attention: a product with values, or the concatenation of several over ranges of queries."""
    concat = definitions.producer(name, "concat")
    chunks = _concatenated(concat, definitions, axis=3) if concat is not None else [name]
    pieces = [_piece(chunk, definitions) for chunk in chunks or ()]
    known = [piece for piece in pieces if piece is not None]
    if not known or len(known) != len(pieces):
        return None
    if len({(piece.key, piece.value, piece.scale) for piece in known}) != 1:
        return None
    query = _join([piece.query for piece in known], axis=3)
    return None if query is None else replace(known[0], query=query)


def _piece(name: str, definitions: Definitions) -> _Piece | None:
    """Follow ``einsum(value, softmax(scale · einsum(key, query)))`` upwards from its result."""
    values = _einsum_operands(name, _VALUES, definitions)
    if values is None:
        return None
    softmax = definitions.producer(values[1], "softmax")
    if softmax is None or (definitions.ints(softmax, "axis") or [-1])[0] not in (1, -3):
        return None
    scores, scale = _unscaled(softmax, definitions)
    operands = _einsum_operands(scores, _SCORES, definitions)
    if operands is None:
        return None
    key, query, value = (definitions.view(operand) for operand in (*operands, values[0]))
    if key is None or query is None or value is None:
        return None
    return _Piece(query, _swap_key(key), value, scale)


def _swap_key(key: View) -> View:
    """The view of a key, (batch, position, 1, channel) in the equation, as (batch, channel, 1, position)."""
    axes = (0, 3, 2, 1)
    return View(key.root, tuple(key.order[axis] for axis in axes), tuple(key.ranges[axis] for axis in axes))


def _unscaled(softmax: Operation, definitions: Definitions) -> tuple[str, float]:
    """What is scaled before ``softmax``, and by how much: 1 when nothing is."""
    name = _name(softmax, "x")
    product = definitions.producer(name, "mul")
    if product is None:
        return name, 1.0
    for constant, other in (("x", "y"), ("y", "x")):
        value = definitions.constant(product, constant)
        if isinstance(value, np.ndarray | np.generic) and value.size == 1:
            return _name(product, other), float(value.item())
    return name, 1.0


def _einsum_operands(name: str, equation: str, definitions: Definitions) -> tuple[str, str] | None:
    operation = definitions.producer(name, "einsum")
    if operation is None or str(definitions.constant(operation, "equation")).replace(" ", "") != equation:
        return None
    names = [argument.name for argument in operation.inputs["values"] if isinstance(argument, Reference)]
    return (names[0], names[1]) if len(names) == 2 else None


def _concatenated(operation: Operation, definitions: Definitions, *, axis: int) -> list[str] | None:
    """The values that ``operation`` joins along ``axis`` of four; None when it does something else."""
    if operation.type != "concat" or (definitions.ints(operation, "axis") or [0])[0] not in (axis, axis - 4):
        return None
    if any(definitions.ints(operation, "interleave") or ()):
        return None
    values = operation.inputs["values"]
    names = [argument.name for argument in values if isinstance(argument, Reference)]
    return names if len(names) == len(values) else None


def _name(operation: Operation, parameter: str) -> str:
    arguments = operation.inputs.get(parameter, ())
    return arguments[0].name if len(arguments) == 1 and isinstance(arguments[0], Reference) else ""


def _join(views: list[View], *, axis: int) -> View | None:
    """The box that views of equal width fill side by side along ``axis``; None when they do not."""
    first = views[0]
    width = first.ranges[axis][1] - first.ranges[axis][0]
    for position, view in enumerate(views):
        begin = first.ranges[axis][0] + position * width
        if view != replace(first, ranges=_with_range(first.ranges, axis, (begin, begin + width))):
            return None
    begin = first.ranges[axis][0]
    return replace(first, ranges=_with_range(first.ranges, axis, (begin, begin + width * len(views))))


def _with_range(ranges: tuple[Range, ...], axis: int, new: Range) -> tuple[Range, ...]:
    return (*ranges[:axis], new, *ranges[axis + 1 :])


def _is_whole(view: View, definitions: Definitions) -> bool:
    """Whether ``view`` is all of its root, with a third axis of one."""
    shape = definitions.shapes[view.root]
    full = all(view.ranges[i] == (0, shape[axis]) for i, axis in enumerate(view.order))
    return full and len(view.order) == 4 and view.ranges[2] == (0, 1)


def _whole_heads(concat: Operation, found: _Attention, definitions: Definitions) -> Iterator[Operation]:
    """The operations that compute ``concat``'s output at once."""
    output = concat.outputs[0]
    operands = {}
    for part in ("query", "key", "value"):
        yield from (steps := _rows(output, part, getattr(found, part), found.heads))
        operands[part] = steps[-1].outputs[0]
    query, value = operands["query"].type.shape, operands["value"].type.shape
    attended = _variable(output, "attended", (*query[:3], value[3]))
    yield Operation(
        "scaled_dot_product_attention",
        f"{concat.name}_attended",
        {part: (Reference(variable.name),) for part, variable in operands.items()}
        | {"scale": (Constant(TensorType("fp32", ()), np.float32(found.scale)),)},
        (attended,),
    )
    shape = (*query[:2], value[3], query[2])
    columns = _variable(output, "columns", shape)
    yield _operation("transpose", attended.name, columns, perm=[0, 1, 3, 2])
    yield _operation("reshape", columns.name, output, shape=list(definitions.shapes[output.name]))


def _rows(output: Variable, part: str, view: View, heads: int) -> list[Operation]:
    """``view``'s root as [batch, heads, positions, width]."""
    batch, channels, _, positions = (end for _, end in view.ranges)
    steps, source = [], view.root
    if view.order != (0, 1, 2, 3):
        arranged = _variable(output, f"{part}_arranged", (batch, channels, 1, positions))
        steps.append(_operation("transpose", source, arranged, perm=list(view.order)))
        source = arranged.name
    split = _variable(output, f"{part}_heads", (batch, heads, channels // heads, positions))
    rows = _variable(output, f"{part}_rows", (batch, heads, positions, channels // heads))
    return [
        *steps,
        _operation("reshape", source, split, shape=list(split.type.shape)),
        _operation("transpose", split.name, rows, perm=[0, 1, 3, 2]),
    ]


def _variable(output: Variable, part: str, shape: tuple[int | None, ...]) -> Variable:
    return Variable(f"{output.name}_{part}", TensorType(output.type.dtype, shape))


def _operation(op_type: str, source: str, output: Variable, **parameters: list[int | None]) -> Operation:
    inputs = {
        name: (Constant(TensorType("int32", (len(values),)), np.array(values, dtype=np.int32)),)
        for name, values in parameters.items()
    }
    return Operation(op_type, output.name, {"x": (Reference(source),), **inputs}, (output,))
