"""A program in pieces that run one after the other, cut where the fewest bytes cross.

Order stays as it is: a cut lies between two operations, and what was computed before it and is used after it
crosses. It crosses in its own type, so that nothing is rounded on the way, and the pieces compute bit for bit
what the whole does. A weight goes with the operations that use it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sd_mil.constexpr import is_compressed
from sd_mil.errors import ChunkingError
from sd_mil.ir.dtypes import stored_bytes
from sd_mil.ir.ports import Description, Port
from sd_mil.ir.program import (
    Block,
    Constant,
    Function,
    Operation,
    Program,
    StateType,
    TensorType,
    ValueType,
    Variable,
)
from sd_mil.ir.uses import constants_in, live_operations, names_used, storage_key, types_in

#: What a port of a model can be.
_PORTS = ("fp16", "fp32", "int32")
_MOST_DIMENSIONS = 5
_NEVER = math.inf
#: What a constant takes in a weight file beside its elements, which are padded to a multiple of it.
_RECORD = 64
#: How much more than its share of the weights a piece may have, the least first.
_SLACK = (1.05, 1.1, 1.2, 1.5, 2.0, 4.0, _NEVER)
_TRIES = 8


def chunked(program: Program, *, count: int | None = None, most: int | None = None) -> tuple[Program, ...]:
    """``program`` in ``count`` pieces of about as many weights, or in as few as have ``most`` bytes each.

    Given::   y = conv(x, w); z = conv(y, v); -> (z)
    Result::  y = conv(x, w); -> (y)        z = conv(y, v); -> (z)

    A piece returns what later ones take, and its share of the outputs. Among cuts that keep the weights
    within bounds those are chosen where the fewest bytes cross in all. Of several functions each is cut at
    the same weights, so that pieces share them as the functions did.

    Raises:
        ChunkingError: no such cut, or a program with states.
        ValueError: neither or both of ``count`` and ``most``, or one that is not positive.
    """
    if (count is None) == (most is None) or (count or most or 0) < 1:
        raise ValueError(f"expected a count or a most of at least 1, got {count} and {most}")
    graphs = {name: _Graph.of(function) for name, function in program.functions.items()}
    first = graphs[program.default_function]
    if count is not None:
        return _cut(program, graphs, _by_count(first, count))
    return _by_size(program, graphs, first, most or 0)


def piece_description(description: Description, function: Function) -> Description:
    """What a piece's package says: its ports, those of the whole as they were, and the whole's metadata."""
    types = types_in(function.body)
    known = {port.name: port for port in (*description.inputs, *description.outputs)}

    def port(name: str) -> Port:
        kind = types[name]
        made = Port(name, kind.shape, kind.dtype.replace("fp", "float"))
        return known.get(name, made)

    names = [variable.name for variable in function.inputs]
    outputs = tuple(map(port, function.outputs))
    return replace(description, inputs=tuple(map(port, names)), outputs=outputs)


@dataclass(frozen=True, slots=True)
class _Graph:
    """A function's operations but constants; bytes of weights up to each, and those that cross after it."""

    function: Function
    computed: tuple[Operation, ...]
    weights: tuple[int, ...]
    crossing: tuple[float, ...]

    @staticmethod
    def of(function: Function) -> _Graph:
        body, types = function.body, types_in(function.body)
        if any(isinstance(variable.type, StateType) for variable in body.inputs):
            raise ChunkingError(f"{function.name}: expected a function without states, got some")
        computed = tuple(one for one in body.operations if not _is_constant(one))
        if not computed:
            raise ChunkingError(f"{function.name}: expected operations to cut between, got none")
        weights = tuple(_accumulated(body, computed))
        return _Graph(function, computed, weights, _crossing(computed, types, body.outputs))


def _is_constant(operation: Operation) -> bool:
    return operation.type == "const" or is_compressed(operation.type)


def _accumulated(body: Block, computed: Sequence[Operation]) -> Iterator[int]:
    """Bytes of the weights that are used up to each operation; each counts where it is used first."""
    own = {output.name: one for one in body.operations if _is_constant(one) for output in one.outputs}
    seen: set[Hashable] = set()
    total = _RECORD
    for operation in computed:
        for constant in _weights(operation, own):
            key = storage_key(constant)
            if key not in seen:
                seen.add(key)
                total += _taken(constant)
        yield total


def _weights(operation: Operation, constants: Mapping[str, Operation]) -> Iterator[Constant]:
    """The constants of a weight file that the operation, and what decodes its weights, take."""
    given = (one for arguments in operation.inputs.values() for one in arguments)
    inner = (one for block in operation.blocks for one in block.operations)
    yield from (one for one in given if isinstance(one, Constant) and one.stored)
    yield from (one for one in operation.attributes.values() if one.stored)
    for name in names_used(operation):
        if name in constants:
            yield from _weights(constants[name], constants)
    for one in inner:
        yield from _weights(one, constants)


def _crossing(
    computed: Sequence[Operation], types: Mapping[str, ValueType], outputs: Iterable[str]
) -> tuple[float, ...]:
    """Bytes that cross after each operation; infinite where something does that no port can pass on."""
    defined = {one.name: place for place, each in enumerate(computed) for one in each.outputs}
    last = {name: place for place, one in enumerate(computed) for name in names_used(one)}
    returned, changes = frozenset(outputs), [[0, 0] for _ in range(len(computed) + 1)]
    for name, start in defined.items():
        stop = last.get(name, start)
        cost = None if name in returned else _bytes(types[name])  # an output that is taken is none any more
        column, amount = (1, 1) if cost is None else (0, cost)
        changes[start][column] += amount
        changes[stop][column] -= amount
    crossing, size, blocked = [], 0, 0
    for change in changes[:-1]:
        size, blocked = size + change[0], blocked + change[1]
        crossing.append(_NEVER if blocked else float(size))
    return tuple(crossing)


def _bytes(kind: ValueType) -> int | None:
    if not isinstance(kind, TensorType) or kind.dtype not in _PORTS:
        return None
    if not 0 < len(kind.shape) <= _MOST_DIMENSIONS or None in kind.shape:
        return None
    return stored_bytes(kind.dtype, tuple(size or 0 for size in kind.shape))


def _by_count(graph: _Graph, count: int) -> list[int]:
    """The operations after which to cut, for so many pieces of about as many weights."""
    for slack in _SLACK:
        found = _best(graph, count, graph.weights[-1] / count * slack)
        if found is not None:
            return found
    raise ChunkingError(
        f"{graph.function.name}: expected {count} pieces, got no {count - 1} places to cut between "
        f"{len(graph.computed)} operations: ask for fewer"
    )


def _by_size(program: Program, graphs: Mapping[str, _Graph], graph: _Graph, most: int) -> tuple[Program, ...]:
    """The fewest pieces whose weight files have at most so many bytes."""
    limit = float(most)
    for _ in range(_TRIES):
        cuts = _fewest(graph, limit, most)
        pieces = _cut(program, graphs, cuts)
        excess = max(map(_file_size, pieces)) - most
        if excess <= 0:
            return pieces
        limit -= excess  # weights that several pieces use
    raise ChunkingError(
        f"{graph.function.name}: expected pieces of at most {most} bytes, got weights that too many use"
    )


def _file_size(program: Program) -> int:
    """Of the weight file of a program."""
    bodies = (function.body for function in program.functions.values())
    stored = (one for body in bodies for one in constants_in(body) if one.stored)
    return _RECORD + sum({storage_key(one): _taken(one) for one in stored}.values())


def _taken(constant: Constant) -> int:
    """Bytes of a weight file, record and padding included."""
    return _RECORD + -(-constant.stored // _RECORD) * _RECORD


def _fewest(graph: _Graph, limit: float, most: int) -> list[int]:
    steps = [after - before for before, after in pairwise((0, *graph.weights))]
    largest = max(range(len(steps)), key=steps.__getitem__)
    if steps[largest] > limit:
        one = graph.computed[largest]
        raise ChunkingError(
            f"{graph.function.name}: expected pieces of at most {most} bytes, got {steps[largest]} for the "
            f"weights of {one.outputs[0].name!r} ({one.type}) alone: allow more"
        )
    least = max(1, math.ceil(graph.weights[-1] / limit))
    for count in range(least, len(graph.computed) + 1):
        found = _best(graph, count, limit)
        if found is not None:
            return found
        if count > 4 * least + 16:
            break
    raise ChunkingError(
        f"{graph.function.name}: expected pieces of at most {most} bytes, got no places to cut that are so "
        "close to each other: allow more"
    )


def _best(graph: _Graph, count: int, limit: float) -> list[int] | None:
    """``count - 1`` cuts with the fewest bytes across and at most ``limit`` bytes of weights between them.

    Least sums over a window that moves with the weights: a minimum for each place and number of cuts, in time
    that is linear in both.
    """
    places, weights, total = len(graph.computed) - 1, graph.weights, graph.weights[-1]
    if count == 1:
        return [] if total <= limit else None
    costs = [cost if weights[at] <= limit else _NEVER for at, cost in enumerate(graph.crossing[:places])]
    earlier: list[list[int]] = []
    for _ in range(count - 2):
        costs, chosen = _next_cut(graph, costs, limit)
        earlier.append(chosen)
    ends = [at for at in range(places) if total - weights[at] <= limit and costs[at] < _NEVER]
    if not ends:
        return None
    cuts = [min(ends, key=costs.__getitem__)]
    for chosen in reversed(earlier):
        cuts.append(chosen[cuts[-1]])
    return cuts[::-1]


def _next_cut(graph: _Graph, costs: Sequence[float], limit: float) -> tuple[list[float], list[int]]:
    """The least cost of one cut more that ends at each place, and the cut before it."""
    window: deque[int] = deque()
    sums, chosen = [], []
    for at, cost in enumerate(costs):
        while window and graph.weights[at] - graph.weights[window[0]] > limit:
            window.popleft()
        before = window[0] if window else -1
        sums.append(costs[before] + graph.crossing[at] if window else _NEVER)
        chosen.append(before)
        while window and costs[window[-1]] >= cost:
            window.pop()
        window.append(at)
    return sums, chosen


def _cut(program: Program, graphs: Mapping[str, _Graph], cuts: Sequence[int]) -> tuple[Program, ...]:
    """The pieces of all functions: each is cut at the weights where the default one is."""
    first = graphs[program.default_function]
    pieces: list[dict[str, Function]] = [{} for _ in range(len(cuts) + 1)]
    for name, graph in graphs.items():
        own = cuts if graph is first else [_place_at(graph, first.weights[cut]) for cut in cuts]
        for into, function in zip(pieces, _pieces(graph, own), strict=True):
            into[name] = function
    return tuple(replace(program, functions=functions) for functions in pieces)


def _place_at(graph: _Graph, weights: int) -> int:
    places = [at for at, reached in enumerate(graph.weights[:-1]) if reached == weights]
    best = min(places, key=graph.crossing.__getitem__, default=None)
    if best is None or graph.crossing[best] == _NEVER:
        raise ChunkingError(
            f"{graph.function.name}: expected a place to cut where the default function is, got none: cut "
            "functions that use the same weights in the same order"
        )
    return best


def _pieces(graph: _Graph, cuts: Sequence[int]) -> Iterator[Function]:
    """The function's pieces; each takes its own share of the inputs and of what earlier ones return."""
    body, types = graph.function.body, types_in(graph.function.body)
    own = tuple(one for one in body.operations if _is_constant(one))
    fixed = {output.name for one in own for output in one.outputs}
    bounds = [0, *(cut + 1 for cut in cuts), len(graph.computed)]
    parts = [graph.computed[start:stop] for start, stop in pairwise(bounds)]
    made = [{output.name for one in part for output in one.outputs} for part in parts]
    uses = [set().union(*map(names_used, part)) for part in parts]
    computed = set().union(*made)
    for index, part in enumerate(parts):
        later: set[str] = set().union(*uses[index + 1 :])
        wanted = [name for name in types if name in made[index] and name in later]
        returned = [
            name
            for name in body.outputs
            if name in made[index] or (index == len(parts) - 1 and name not in computed)
        ]
        outputs = tuple(dict.fromkeys([*wanted, *returned]))
        taken = (uses[index] | {name for name in outputs if name not in made[index]}) - made[index] - fixed
        inputs = tuple(Variable(name, kind) for name, kind in types.items() if name in taken)
        members = {id(one) for one in (*own, *part)}
        kept = tuple(one for one in body.operations if id(one) in members)
        block = replace(body, inputs=inputs, operations=kept, outputs=outputs)
        block = replace(block, operations=live_operations(block))
        yield replace(graph.function, body=block, specializations={})
