"""Attention over all heads at once, written in the layout that OpenVINO runs as one kernel.

Its CPU plugin fuses ``softmax(q · kᵀ) · v`` only over [batch, heads, positions, width] that comes from
[batch, positions, heads, width]. Over SD's [batch, channels, 1, positions] the scores, 1 GB at 64x64 latents,
would be written to memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from sd_mil.ir.program import Argument, Constant, Operation, Program, Reference, TensorType, Variable
from sd_mil.rewriting.views import Definitions, View


@dataclass(frozen=True, slots=True)
class Attention:
    """Which values hold query, key and value: whole ones, seen as (batch, heads·width, 1, positions)."""

    query: View
    key: View
    value: View
    heads: int
    scale: float


#: Recognises the attention whose result an operation computes.
Match = Callable[[Operation, Definitions], Attention | None]


def rewrite_attention(program: Program, match: Match) -> Program:
    """``program`` with every operation that ``match`` recognises replaced by whole-head attention."""
    body = program.main.body
    definitions = Definitions.of(body)
    operations: list[Operation] = []
    for operation in body.operations:
        found = match(operation, definitions)
        operations.extend([operation] if found is None else _whole_heads(operation.outputs[0], found))
    main = replace(program.main, body=replace(body, operations=tuple(operations)))
    return replace(program, functions={**program.functions, program.default_function: main})


def unscaled(softmax: Operation, definitions: Definitions) -> tuple[str, float]:
    """What is scaled before ``softmax``, and by how much: 1 when nothing is."""
    scores = definitions.operand(softmax, "x")
    product = definitions.producer(scores, "mul")
    if product is None:
        return scores, 1.0
    for constant, other in (("x", "y"), ("y", "x")):
        value = definitions.constant(product, constant)
        if isinstance(value, np.ndarray | np.generic) and value.size == 1:
            return definitions.operand(product, other), float(value.item())
    return scores, 1.0


def _whole_heads(output: Variable, found: Attention) -> Iterator[Operation]:
    """The operations that compute ``output`` [batch, heads·width, 1, positions] at once."""
    query, query_steps = _rows(output, "query", found.query, found.heads)
    key, key_steps = _rows(output, "key", found.key, found.heads)
    value, value_steps = _rows(output, "value", found.value, found.heads)
    yield from (*query_steps, *key_steps, *value_steps)
    query, query_scaling = _scaled(output, query, found.scale)
    yield from query_scaling
    batch, heads, positions, _ = query.type.shape
    width = value.type.shape[3]
    attended = _variable(output, "attended", (batch, heads, positions, width))
    inputs: dict[str, tuple[Argument, ...]] = {
        "query": (Reference(query.name),),
        "key": (Reference(key.name),),
        "value": (Reference(value.name),),
    }
    yield Operation("scaled_dot_product_attention", attended.name, inputs, (attended,))
    split = _variable(output, "positions", (batch, positions, heads, width))
    yield _operation("transpose", attended.name, split, perm=(0, 2, 1, 3))
    joined = _variable(output, "rows", (batch, positions, 1, found.heads * (width or 0)))
    yield _operation("reshape", split.name, joined, shape=joined.type.shape)
    yield _operation("transpose", joined.name, output, perm=(0, 3, 2, 1))


def _rows(output: Variable, part: str, view: View, heads: int) -> tuple[Variable, list[Operation]]:
    """``view``'s root as [batch, heads, positions, width], and the operations that make it so."""
    batch, channels, _, positions = (end for _, end in view.ranges)
    width = channels // heads
    rows = _variable(output, f"{part}_rows", (batch, positions, 1, channels))
    split = _variable(output, f"{part}_positions", (batch, positions, heads, width))
    whole = _variable(output, f"{part}_heads", (batch, heads, positions, width))
    return whole, [
        _operation("transpose", view.root, rows, perm=tuple(view.order[axis] for axis in (0, 3, 2, 1))),
        _operation("reshape", rows.name, split, shape=split.type.shape),
        _operation("transpose", split.name, whole, perm=(0, 2, 1, 3)),
    ]


def _scaled(output: Variable, query: Variable, scale: float) -> tuple[Variable, list[Operation]]:
    """``query`` times what ``scale`` is over attention's own 1/√width: near 1, and so kept in fp32."""
    factor = np.array(scale * (query.type.shape[3] or 0) ** 0.5, dtype=np.float32)
    if factor == 1:
        return query, []
    scaled = _variable(output, "query_scaled", query.type.shape)
    inputs: dict[str, tuple[Argument, ...]] = {
        "x": (Reference(query.name),),
        "y": (Constant(TensorType("fp32", ()), factor),),
    }
    return scaled, [Operation("mul", scaled.name, inputs, (scaled,))]


def _variable(output: Variable, part: str, shape: tuple[int | None, ...]) -> Variable:
    return Variable(f"{output.name}_{part}", TensorType(output.type.dtype, shape))


def _operation(
    op_type: str, source: str, output: Variable, **parameters: tuple[int | None, ...]
) -> Operation:
    inputs = {
        name: (Constant(TensorType("int32", (len(values),)), np.array(values, dtype=np.int32)),)
        for name, values in parameters.items()
    }
    return Operation(op_type, output.name, {"x": (Reference(source),), **inputs}, (output,))
