"""Attention in pieces: over the batch, or over the queries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from sd_mil.ir.program import (
    Argument,
    Constant,
    Operation,
    Program,
    Reference,
    TensorType,
    ValueType,
    Variable,
)
from sd_mil.ir.uses import types_in, with_operations
from sd_mil.rewriting.building import Builder, named, replaced, resized
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import IN_ORDER, SMALL_ATTENTION_BATCH
from sd_mil.rewriting.scores import (
    FUSED,
    LARGEST_BATCH,
    PRODUCTS,
    Attention,
    attentions,
    batch_of,
    is_reshaped,
    kind_of,
)
from sd_mil.rewriting.views import Definitions

#: How an attention is cut; None: not at all.
_Cutting: TypeAlias = "Callable[[Attention], _Cut | None]"

#: Elements of one softmax on the Neural Engine, at most: two samples of 64 x 64 latents in Apple's own
#: SPLIT_EINSUM packages, the largest that are known to run there.
LARGEST_SOFTMAX = 2 * 4096 * 4096


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER, SMALL_ATTENTION_BATCH))
def split_attention_batch(program: Program, largest: int = LARGEST_BATCH) -> Program:
    """Compute attention over at most ``largest`` samples at a time.

    Given::   y = scaled_dot_product_attention(q, k, v)                          over [20, heads, S, E]
    Result::  y_0 = scaled_dot_product_attention(q[:7], k[:7], v[:7]); y_1 = ...; y = concat(y_0, ..., axis=0)

    The fused kernel of the GPU is wrong from 10 samples on (coremltools#2650), also for the products and the
    softmax that Core ML fuses by itself. Samples do not see each other: not a bit changes.
    """

    def pieces(found: Attention) -> _Cut | None:
        rank, batch = len(found.result.type.shape), batch_of(found)
        count = math.ceil(batch / largest)
        return None if count < 2 or is_reshaped(found) else _Cut(-rank, -rank, batch, count, None)

    return _split(program, pieces)


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER,))
def split_softmax(program: Program, largest: int = LARGEST_SOFTMAX) -> Program:
    """Compute attention over so few queries at a time that no softmax has more than ``largest`` elements.

    Given::   w = softmax(matmul(q, k)); y = matmul(w, v)
    Result::  y_0 = matmul(softmax(matmul(q[:512], k)), v); y_1 = ...; y = concat(y_0, y_1, ...)

    As SPLIT_EINSUM_V2 does. A softmax that belongs to no attention is taken over slices of its largest other
    axis. Queries do not see each other: the sums are the same, though a library may order them otherwise.
    """

    def pieces(found: Attention) -> _Cut | None:
        queries = found.result.type.shape[found.result_axis] or 0
        count = _pieces(found.elements, queries, largest)
        cut = _Cut(found.query_axis, found.result_axis, queries, count, found.query)
        return None if count < 2 or is_reshaped(found) else cut

    return _split_alone(_split(program, pieces), largest)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Into how many pieces, along which axis of the scores (from the end), and of the result, of what size.

    ``only``: the one operand of the products that is cut; None for all.
    """

    axis: int
    result_axis: int
    size: int
    count: int
    only: tuple[str, int] | None

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Of nearly the same size."""
        edges = [self.size * index // self.count for index in range(self.count + 1)]
        yield from itertools.pairwise(edges)


def _pieces(elements: int, size: int, largest: int) -> int:
    """Into how many an axis of ``size`` is cut, so that none has more elements than ``largest``."""
    return math.ceil(size / max(1, largest * size // elements)) if elements else 1


def _split(program: Program, cutting: _Cutting) -> Program:
    body = program.main.body
    types, builder, made = types_in(body), Builder.beside(body), []
    for found in attentions(body):
        cut = cutting(found)
        if cut is not None:
            made.append((found.operations, _Pieces(builder, types, found, cut).operations()))
    return with_operations(program, replaced(body, made))


class _Pieces:
    """One attention, computed in pieces that are joined at the end."""

    def __init__(self, builder: Builder, types: Mapping[str, ValueType], found: Attention, cut: _Cut) -> None:
        self._builder = builder
        self._types = types
        self._found = found
        self._cut = cut
        self._renamed: dict[str, str] = {}

    def operations(self) -> tuple[Operation, ...]:
        """The last one defines the result's own name."""
        self._builder.operations = []
        parts = []
        for index, (begin, end) in enumerate(self._cut.ranges()):
            self._renamed = {}
            for operation in self._found.operations:
                self._piece(operation, index, begin, end)
            parts.append(Reference(self._renamed[self._found.result.name]))
        self._builder.concat(self._found.result, parts, self._cut.result_axis)
        return tuple(self._builder.operations)

    def _piece(self, operation: Operation, index: int, begin: int, end: int) -> None:
        def taken(key: str, place: int, argument: Argument) -> Argument:
            if isinstance(argument, Reference) and argument.name in self._renamed:
                return Reference(self._renamed[argument.name])
            axis = self._axis(operation, key, place)
            return argument if axis is None else self._sliced(argument, axis, f"_{index}", begin, end)

        inputs = {
            key: tuple(taken(key, place, one) for place, one in enumerate(given))
            for key, given in operation.inputs.items()
        }
        output = operation.outputs[0]
        is_last = operation is self._found.operations[-1]
        axis = self._cut.result_axis if is_last else self._cut.axis
        kind = resized(kind_of(output), axis, end - begin)
        made = self._builder.value(f"{output.name}_{index}", kind)
        attributes = {**operation.attributes, **named(made.name)}
        self._builder.operations.append(
            replace(operation, name=made.name, inputs=inputs, outputs=(made,), attributes=attributes)
        )
        self._renamed[output.name] = made.name

    def _axis(self, operation: Operation, key: str, place: int) -> int | None:
        """Along which axis an operand from outside is cut, where it has the size; None: it is taken whole."""
        is_product = operation.type in PRODUCTS or operation.type == FUSED
        if key not in _OPERANDS or (is_product and self._is_kept(operation, key, place)):
            return None
        is_queries = self._cut.only is not None and (key, place) == self._cut.only and is_product
        return self._found.query_input_axis if is_queries else self._cut.axis

    def _is_kept(self, operation: Operation, key: str, place: int) -> bool:
        """Keys and values, when it is the queries that are cut."""
        if self._cut.only is None or key == "attn_mask":
            return False
        return operation is not self._found.operations[0] or (key, place) != self._cut.only

    def _sliced(self, argument: Argument, axis: int, suffix: str, begin: int, end: int) -> Argument:
        kind = argument.type if isinstance(argument, Constant) else self._types.get(argument.name)
        if (
            not isinstance(kind, TensorType)
            or len(kind.shape) < -axis
            or kind.shape[axis] != self._cut.size
            or None in kind.shape
        ):
            return argument
        source = self._builder.const("operand", argument) if isinstance(argument, Constant) else argument
        return self._builder.slice(f"{source.name}{suffix}", source, kind, axis, begin, end)


#: The parameters of products and of what stands between that are data.
_OPERANDS = frozenset({"x", "y", "values", "query", "key", "value", "attn_mask"})


def _split_alone(program: Program, largest: int) -> Program:
    """The softmaxes that are part of no attention."""
    body = program.main.body
    definitions, builder, made = Definitions.of(body), Builder.beside(body), []
    for operation in body.operations:
        if operation.type == "softmax" and isinstance(operation.outputs[0].type, TensorType):
            (axis,) = definitions.ints(operation, "axis") or [-1]
            pieces = _softmax_pieces(builder, operation, axis, largest)
            if pieces:
                made.append(((operation,), pieces))
    return with_operations(program, replaced(body, made))


def _softmax_pieces(builder: Builder, softmax: Operation, axis: int, largest: int) -> tuple[Operation, ...]:
    """The same softmax over slices; nothing where it is small, or has no other axis."""
    output = softmax.outputs[0]
    kind = kind_of(output)
    sizes = [size or 0 for size in kind.shape]
    others = [place - len(sizes) for place in range(len(sizes)) if place != axis % len(sizes)]
    source = softmax.inputs["x"][0]
    if not others or None in kind.shape or math.prod(sizes) <= largest or not isinstance(source, Reference):
        return ()
    widest = max(others, key=lambda place: sizes[place])
    count = _pieces(math.prod(sizes), sizes[widest], largest)
    if count < 2:
        return ()
    builder.operations = []
    parts = []
    for index, (begin, end) in enumerate(_Cut(widest, widest, sizes[widest], count, None).ranges()):
        part = builder.slice(f"{output.name}_{index}_x", source, kind, widest, begin, end)
        made = Variable(builder.name(f"{output.name}_{index}"), resized(kind, widest, end - begin))
        parts.append(builder.call("softmax", made, x=part, axis=softmax.inputs["axis"]))
    builder.concat(output, parts, widest)
    return tuple(builder.operations)
