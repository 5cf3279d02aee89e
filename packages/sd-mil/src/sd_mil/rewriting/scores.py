"""Attention as products and a softmax, or as one operation, found in a program of whatever origin.

::

    scores  = matmul(query, key)           or einsum("bkhc,bchq->bkhq", key, query)
    ...     = mul, add, sub, real_div, reshape, each of which only the next one reads
    weights = softmax(...)
    result  = matmul(weights, value)       or einsum("bchk,bkhq->bchq", value, weights)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from sd_mil.ir.program import Block, Operation, TensorType, Variable
from sd_mil.ir.uses import names_used, operand
from sd_mil.rewriting.views import Definitions

FUSED = "scaled_dot_product_attention"
SCORES, VALUES = "bkhc,bchq->bkhq", "bchk,bkhq->bchq"
PRODUCTS = ("matmul", "einsum")
#: Samples that the GPU's fused attention computes rightly (coremltools#2650).
LARGEST_BATCH = 9
_BETWEEN = ("add", "cast", "mul", "real_div", "reshape", "sub")
#: Operations between the products, at most: a scale, two masks, and the reshapes around them.
_FARTHEST = 8


@dataclass(frozen=True, slots=True)
class Attention:
    """The operations of one attention, in order; only the last one's output is read by others.

    ``softmax`` is the place of the softmax among them. ``query_axis`` is that of the queries in the scores,
    from the end; ``query`` the parameter (and the place in it) that holds the queries of the first operation,
    and ``query_input_axis`` the queries' axis there; ``result_axis`` that of the queries in the result.
    """

    operations: tuple[Operation, ...]
    softmax: int
    query: tuple[str, int]
    query_axis: int
    query_input_axis: int
    result_axis: int
    elements: int

    @property
    def result(self) -> Variable:
        """What it computes."""
        return self.operations[-1].outputs[0]


def attentions(block: Block) -> Iterator[Attention]:
    """Those whose sizes are all known, in the order of their softmax; nested blocks are not looked into."""
    reader = _Reader(Definitions.of(block), _readers(block))
    for operation in block.operations:
        if operation.type not in ("softmax", FUSED) or not _is_sized(operation):
            continue
        found = reader.fused(operation) if operation.type == FUSED else reader.around(operation)
        if found is not None and all(map(_is_sized, found.operations)):
            yield found


def is_rank_3(attention: Attention) -> bool:
    """Whether its products are of matrices in one batch."""
    return len(attention.result.type.shape) == len(attention.operations[0].outputs[0].type.shape) == 3


def batch_of(attention: Attention) -> int:
    """How many samples it is computed for: the first of at least four dimensions."""
    shape = attention.result.type.shape
    return (shape[0] or 0) if len(shape) > 3 else 1


def is_reshaped(attention: Attention) -> bool:
    """Whether a reshape stands between its products, so that axes are not the same throughout."""
    return any(operation.type == "reshape" for operation in attention.operations)


def kind_of(variable: Variable) -> TensorType:
    """The type of a value that is a tensor of known sizes, as those of attention are."""
    if not isinstance(variable.type, TensorType):
        raise TypeError(f"expected a tensor, got {variable.type}")
    return variable.type


def _is_sized(operation: Operation) -> bool:
    return all(
        isinstance(output.type, TensorType) and None not in output.type.shape for output in operation.outputs
    )


def _readers(block: Block) -> Counter[str]:
    """How many operations (and returns) read each value; a nested block counts as many."""
    counts = Counter(block.outputs)
    for operation in block.operations:
        for name in names_used(operation):
            counts[name] += 2 if operation.blocks else 1
    return counts


class _Reader:
    def __init__(self, definitions: Definitions, readers: Counter[str]) -> None:
        self._definitions = definitions
        self._readers = readers
        self._users = {
            name: operation for operation in definitions.producers.values() for name in names_used(operation)
        }

    def fused(self, operation: Operation) -> Attention | None:
        """The attention that is one operation."""
        query, key = (self._definitions.shapes.get(operand(operation, name), ()) for name in ("query", "key"))
        sizes = (*query[:-1], *key[-2:-1])
        if None in sizes or len(query) < 2 or len(key) < 2:
            return None
        return Attention((operation,), 0, ("query", 0), -2, -2, -2, math.prod(size or 0 for size in sizes))

    def around(self, softmax: Operation) -> Attention | None:
        """The attention that a softmax is part of."""
        before = self._before(operand(softmax, "x"), _FARTHEST)
        after = self._after(softmax.outputs[0].name)
        if before is None or after is None:
            return None
        operations = (*before, softmax, *after)
        axes = self._axes(operations, len(before))
        elements = math.prod(size or 0 for size in softmax.outputs[0].type.shape)
        return None if axes is None else Attention(operations, len(before), *axes, elements)

    def _before(self, name: str, steps: int) -> tuple[Operation, ...] | None:
        """From the product that computes the scores to the operation that defines ``name``."""
        operation = self._definitions.producers.get(name)
        if operation is None or not steps or self._readers[name] != 1:
            return None
        if operation.type in PRODUCTS:
            return (operation,)
        if operation.type not in _BETWEEN:
            return None
        for parameter in ("x", "y"):
            found = self._before(operand(operation, parameter), steps - 1)
            if found is not None:
                return (*found, operation)
        return None

    def _after(self, name: str) -> tuple[Operation, ...] | None:
        """To the product with the values."""
        after: tuple[Operation, ...] = ()
        for _ in range(_FARTHEST):
            operation = self._users.get(name)
            if operation is None or self._readers[name] != 1 or operation.blocks:
                return None
            after = (*after, operation)
            if operation.type in PRODUCTS:
                return after
            if operation.type not in ("cast", "reshape"):
                return None
            name = operation.outputs[0].name
        return None

    def _axes(
        self, operations: tuple[Operation, ...], softmax: int
    ) -> tuple[tuple[str, int], int, int, int] | None:
        first, last = operations[0], operations[-1]
        rank = len(operations[softmax].outputs[0].type.shape)
        (axis,) = self._definitions.ints(operations[softmax], "axis") or [-1]
        keys = axis if axis < 0 else axis - rank
        weights = operations[-2].outputs[0].name
        if first.type == last.type == "einsum":
            is_split = (
                self._equation(first) == SCORES
                and self._equation(last) == VALUES
                and keys == -3
                and self._definitions.operands(last, "values")[1:] == [weights]
            )
            return (("values", 1), -1, -1, -1) if is_split else None
        if first.type != "matmul" or last.type != "matmul" or keys not in (-1, -2):
            return None
        return self._product_axes(first, last, keys, weights)

    def _product_axes(
        self, first: Operation, last: Operation, keys: int, weights: str
    ) -> tuple[tuple[str, int], int, int, int] | None:
        queries = -3 - keys
        side, other = ("x", -2) if queries == -2 else ("y", -1)
        is_turned = self._is_set(first, f"transpose_{side}")
        input_axis = -3 - other if is_turned else other
        place = "x" if operand(last, "x") == weights else "y"
        contracted = -1 if place == "x" else -2
        if self._is_set(last, f"transpose_{place}"):
            contracted = -3 - contracted
        if contracted != keys or not operand(first, side):
            return None
        return (side, 0), queries, input_axis, -2 if place == "x" else -1

    def _is_set(self, operation: Operation, parameter: str) -> bool:
        return self._definitions.ints(operation, parameter) == [1]

    def _equation(self, operation: Operation) -> str:
        return str(self._definitions.constant(operation, "equation")).replace(" ", "")
