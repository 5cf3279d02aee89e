"""Recurrent layers that were written as loops, as TensorFlow's and Keras' converters do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sd_mil.ir.limits import MAX_ITERATIONS
from sd_mil.ir.program import (
    Argument,
    Block,
    Constant,
    ListType,
    Operation,
    Program,
    Reference,
    TensorType,
    ValueType,
    Variable,
)
from sd_mil.ir.uses import has_effects, operand, with_operations
from sd_mil.rewriting.casts import without_casts
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import IN_ORDER
from sd_mil.rewriting.views import Definitions

Array = npt.NDArray[np.generic]

#: Gates of MIL's ``lstm``, in the order of its weights.
_GATES = 4
#: Sums of sums of sums that are looked into: the products with x and h, and a bias of each.
_MAX_DEPTH = 4


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER,))
def join_recurrences(program: Program) -> Program:
    """Write a loop that computes an LSTM, one time step after another, as the one operation for it.

    Given a loop over i = 0 … S - 1, h, c and a list ys, and in its body::

        x          = list_read(xs, i), or gather(xs, i, axis=0)
        i, f, o, z = split(linear(concat(x, h), weight, bias), axis=-1), in any order
        c          = sigmoid(f) c + sigmoid(i) tanh(z)
        h          = sigmoid(o) tanh(c)
        ys         = list_write(ys, i, h)

    Result::

        x          = list_gather(xs, [0, …, S - 1]), or the first S of xs
        y, h, c    = lstm(x, h, c, weight_ih, weight_hh, bias, output_sequence=True)
        ys         = list_scatter(ys, [0, …, S - 1], y)

    The products with x and h may stand apart, as ``linear`` or ``matmul``, with their biases added later, and
    there may be casts between float types, which change nothing here. Other loops are left alone.
    """
    body = program.main.body
    if not any(operation.type == "while_loop" for operation in body.operations):
        return program
    outside = Definitions.of(body)
    types = {one.name: one.type for one in body.inputs}
    types |= {one.name: one.type for operation in body.operations for one in operation.outputs}
    operations: list[Operation] = []
    for operation in body.operations:
        found = _found(operation, outside, types) if operation.type == "while_loop" else None
        operations.extend([operation] if found is None else found.written(operation))
    return with_operations(program, operations)


@dataclass(frozen=True, slots=True)
class _Recurrence:
    """An LSTM over ``steps`` elements of ``source``, and where its parts are among the loop's variables."""

    steps: int
    source: str
    source_type: ValueType
    weight_ih: Array
    weight_hh: Array
    bias: Array
    counters: tuple[int, ...]
    hidden: int
    cell: int
    lists: tuple[int, ...]
    initial: tuple[Argument, ...]

    def written(self, loop: Operation) -> Iterator[Operation]:
        """The operations in the loop's place."""
        outputs, dtype = loop.outputs, loop.outputs[self.hidden].type.dtype
        batch, width = loop.outputs[self.hidden].type.shape
        size = self.weight_ih.shape[1]
        x = Variable(f"{outputs[self.hidden].name}_steps", TensorType(dtype, (self.steps, batch, size)))
        y = Variable(f"{outputs[self.hidden].name}_all", TensorType(dtype, (self.steps, batch, width)))
        yield self._steps(x)
        yield self._layer(loop, x, y)
        for place in self.lists:
            inputs = {
                "ls": (self.initial[place],),
                "indices": (_ints(np.arange(self.steps)),),
                "value": (Reference(y.name),),
            }
            yield Operation("list_scatter", outputs[place].name, inputs, (outputs[place],))
        for place in self.counters:
            value = _ints(np.array(self.steps))
            yield Operation("const", outputs[place].name, {}, (outputs[place],), {"val": value})
        known = {*self.lists, *self.counters, self.hidden, self.cell}
        for place, output in enumerate(outputs):
            if place not in known:
                yield Operation("identity", output.name, {"x": (self.initial[place],)}, (output,))

    def _steps(self, x: Variable) -> Operation:
        """What the loop reads, step by step, at once."""
        if isinstance(self.source_type, ListType):
            places = (_ints(np.arange(self.steps)),)
            return Operation(
                "list_gather", x.name, {"ls": (Reference(self.source),), "indices": places}, (x,)
            )
        inputs: dict[str, tuple[Argument, ...]] = {
            "x": (Reference(self.source),),
            "begin": (_ints(np.zeros(3)),),
            "end": (_ints(np.array([self.steps, 0, 0])),),
            "end_mask": (Constant(TensorType("bool", (3,)), np.array([False, True, True])),),
        }
        return Operation("slice_by_index", x.name, inputs, (x,))

    def _layer(self, loop: Operation, x: Variable, y: Variable) -> Operation:
        inputs: dict[str, tuple[Argument, ...]] = {
            "x": (Reference(x.name),),
            "initial_h": (self.initial[self.hidden],),
            "initial_c": (self.initial[self.cell],),
            "weight_ih": (_weight(self.weight_ih),),
            "weight_hh": (_weight(self.weight_hh),),
            "bias": (_weight(self.bias),),
            "output_sequence": (Constant(TensorType("bool", ()), np.array(True)),),
        }
        outputs = (y, loop.outputs[self.hidden], loop.outputs[self.cell])
        return Operation("lstm", y.name, inputs, outputs)


def _ints(values: npt.NDArray[np.generic]) -> Constant:
    return Constant(TensorType("int32", values.shape), values.astype(np.int32))


def _weight(values: Array) -> Constant:
    """In the weights' own dtype; sums of biases are fp32, so that nothing is rounded twice."""
    array = np.ascontiguousarray(values)
    dtype = "fp16" if array.dtype == np.float16 else "fp32"
    return Constant(TensorType(dtype, array.shape), array, stored=array.nbytes)


def _found(loop: Operation, outside: Definitions, types: Mapping[str, ValueType]) -> _Recurrence | None:
    if len(loop.blocks) != 2 or any(map(has_effects, loop.blocks[1].operations)):
        return None
    condition, body = loop.blocks
    initial = loop.inputs.get("loop_vars", ())
    if (
        not len(initial)
        == len(loop.outputs)
        == len(body.inputs)
        == len(body.outputs)
        == len(condition.inputs)
    ):
        return None
    return _Loop.of(loop, condition, without_casts(body), outside, types).recurrence()


@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop, and who computes what in and around it."""

    condition: Block
    body: Block
    initial: tuple[Argument, ...]
    types: Mapping[str, ValueType]
    within: Definitions
    asked: Definitions

    @staticmethod
    def of(
        loop: Operation, condition: Block, body: Block, outside: Definitions, types: Mapping[str, ValueType]
    ) -> _Loop:
        """The loop; names of a block are its own, and so beside those outside."""
        inner, test = Definitions.of(body), Definitions.of(condition)
        within = Definitions({**outside.producers, **inner.producers}, {**outside.shapes, **inner.shapes})
        asked = Definitions({**outside.producers, **test.producers}, {**outside.shapes, **test.shapes})
        return _Loop(condition, body, loop.inputs["loop_vars"], types, within, asked)

    def recurrence(self) -> _Recurrence | None:
        """The LSTM that it computes; None where it does something else."""
        counters = tuple(place for place in range(len(self.initial)) if self._counts(place))
        steps = self._steps(counters)
        cells = [place for place in range(len(self.initial)) if self._is_computed(place, "add", counters)]
        if not 0 < steps <= MAX_ITERATIONS or len(cells) != 1:
            return None
        hidden = [place for place in range(len(self.initial)) if self._is_computed(place, "mul", counters)]
        if len(hidden) != 1 or self.body.inputs[hidden[0]].type != self.body.inputs[cells[0]].type:
            return None
        return self._with(counters, steps, hidden[0], cells[0])

    def _with(self, counters: tuple[int, ...], steps: int, hidden: int, cell: int) -> _Recurrence | None:
        known = {*counters, hidden, cell}
        others = [place for place in range(len(self.initial)) if place not in known]
        kept = [place for place in others if self.body.outputs[place] == self.body.inputs[place].name]
        lists = tuple(place for place in others if place not in kept)
        if not all(self._is_written(place, counters, steps, hidden) for place in lists):
            return None
        pieces = self._gates(hidden, cell)
        source = None if pieces is None else self._affine(pieces, hidden, counters, steps)
        if source is None:
            return None
        name, weight_ih, weight_hh, bias = source
        places = (counters, hidden, cell, lists, self.initial)
        return _Recurrence(steps, name, self.types[name], weight_ih, weight_hh, bias, *places)

    def _counts(self, place: int) -> bool:
        """Whether a variable is 0, 1, 2, …"""
        step = self.within.producer(self.body.outputs[place], "add")
        name = self.body.inputs[place].name
        if step is None or self.body.inputs[place].type != TensorType("int32", ()):
            return False
        for counted, one in (("x", "y"), ("y", "x")):
            if operand(step, counted) == name and self.within.ints(step, one) == [1]:
                return self._starts_at_zero(place)
        return False

    def _starts_at_zero(self, place: int) -> bool:
        start = Operation("", "", {"x": (self.initial[place],)}, ())
        return self.within.ints(start, "x") == [0]

    def _steps(self, counters: tuple[int, ...]) -> int:
        """How often the condition holds; 0 where that is not known. Keras bounds a loop by two counters."""
        name = self.condition.outputs[0] if self.condition.outputs else ""
        both = self.asked.producer(name, "logical_and")
        names = [name] if both is None else [operand(both, one) for one in ("x", "y")]
        return min(self._limit(one, counters) for one in names)

    def _limit(self, name: str, counters: tuple[int, ...]) -> int:
        less = self.asked.producer(name, "less")
        limit = None if less is None else self.asked.ints(less, "y")
        names = {self.condition.inputs[place].name for place in counters}
        if less is None or limit is None or len(limit) != 1 or operand(less, "x") not in names:
            return 0
        return limit[0]

    def _is_computed(self, place: int, kind: str, counters: tuple[int, ...]) -> bool:
        return (
            place not in counters
            and isinstance(self.body.inputs[place].type, TensorType)
            and len(self.body.inputs[place].type.shape) == 2
            and self.within.producer(self.body.outputs[place], kind) is not None
        )

    def _is_written(self, place: int, counters: tuple[int, ...], steps: int, hidden: int) -> bool:
        """Whether a variable is a list that holds every h at its step, and is not read."""
        write = self.within.producer(self.body.outputs[place], "list_write")
        kind, name = self.body.inputs[place].type, self.body.inputs[place].name
        uses = sum(name in (operand(one, "ls"), operand(one, "x")) for one in self.body.operations)
        return (
            write is not None
            and isinstance(kind, ListType)
            and kind.length is not None
            and kind.length >= steps
            and operand(write, "ls") == name
            and uses == 1
            and operand(write, "index") in {self.body.inputs[one].name for one in counters}
            and operand(write, "value") == self.body.outputs[hidden]
        )

    def _gates(self, hidden: int, cell: int) -> tuple[str, str, str, str] | None:
        """The names of what the gates are made of, before their activations: i, f, o, z."""
        new_cell = self.body.outputs[cell]
        out = self._product(self.body.outputs[hidden], "tanh", new_cell)
        total = self.within.producer(new_cell, "add")
        if out is None or total is None:
            return None
        for kept, added in (("x", "y"), ("y", "x")):
            forget = self._forgotten(operand(total, kept), self.body.inputs[cell].name)
            entry = self._entered(operand(total, added))
            if forget is not None and entry is not None:
                return entry[0], forget, out, entry[1]
        return None

    def _product(self, name: str, activation: str, of: str) -> str | None:
        """In ``sigmoid(a) · activation(of)``: a."""
        for gate, other in self._factors(name):
            active = self.within.producer(other, activation)
            if active is not None and operand(active, "x") == of:
                return self._activated(gate, "sigmoid")
        return None

    def _forgotten(self, name: str, cell: str) -> str | None:
        """In ``sigmoid(a) · cell``: a."""
        found = (self._activated(gate, "sigmoid") for gate, other in self._factors(name) if other == cell)
        return next(found, None)

    def _entered(self, name: str) -> tuple[str, str] | None:
        """In ``sigmoid(a) · tanh(b)``: a and b."""
        for gate, other in self._factors(name):
            pair = self._activated(gate, "sigmoid"), self._activated(other, "tanh")
            if pair[0] is not None and pair[1] is not None:
                return pair[0], pair[1]
        return None

    def _factors(self, name: str) -> Iterator[tuple[str, str]]:
        product = self.within.producer(name, "mul")
        if product is not None:
            yield operand(product, "x"), operand(product, "y")
            yield operand(product, "y"), operand(product, "x")

    def _activated(self, name: str, activation: str) -> str | None:
        operation = self.within.producer(name, activation)
        return None if operation is None else operand(operation, "x")

    def _affine(
        self, pieces: tuple[str, ...], hidden: int, counters: tuple[int, ...], steps: int
    ) -> tuple[str, Array, Array, Array] | None:
        """The sequence that is read, and the weights and biases of the gates, in the order of ``pieces``."""
        width = self.body.inputs[hidden].type.shape[1]
        gates = [self._gate(piece, width) for piece in pieces]
        known = [gate for gate in gates if gate is not None]
        if len(known) != _GATES or len({name for name, _, _ in known}) != 1 or width is None:
            return None
        total = _Sum.of(known[0][0], self.within, _GATES * width)
        h = self.body.inputs[hidden].name
        read = [] if total is None else [name for name in total.weights if name != h]
        if total is None or h not in total.weights or len(read) != 1:
            return None
        batch = self.body.inputs[hidden].type.shape[0]
        if self.within.shapes.get(read[0]) != (batch, total.weights[read[0]].shape[1]):
            return None
        source = self._source(read[0], counters, steps)
        if source is None:
            return None
        rows = np.concatenate([np.arange(begin, begin + width) for _, begin, _ in known])
        bias = total.bias[rows] + np.concatenate([np.broadcast_to(more, width) for _, _, more in known])
        return source, total.weights[read[0]][rows], total.weights[h][rows], bias

    def _gate(self, name: str, width: int | None) -> tuple[str, int, npt.NDArray[np.float32]] | None:
        """Of a piece of a sum: the sum, where the piece begins, and what is added to the piece alone."""
        more = np.zeros(1, np.float32)
        shifted = self.within.producer(name, "add")
        if shifted is not None:
            for constant, other in (("y", "x"), ("x", "y")):
                value = self.within.constant(shifted, constant)
                if isinstance(value, np.ndarray | np.generic) and value.size in (1, width):
                    name, more = operand(shifted, other), np.asarray(value, np.float32).ravel()
                    break
        view = self.within.view(name)
        if view is None or view.order != (0, 1) or view.ranges[1][1] - view.ranges[1][0] != width:
            return None
        whole = view.ranges[0] == (0, self.within.shapes[view.root][0])
        return (view.root, view.ranges[1][0], more) if whole else None

    def _source(self, name: str, counters: tuple[int, ...], steps: int) -> str | None:
        """What is read at each step: a list, or a tensor [steps or more, batch, size]."""
        read = self.within.producers.get(name)
        if read is None or read.type not in ("list_read", "gather"):
            return None
        parameters = ("ls", "index") if read.type == "list_read" else ("x", "indices")
        source, index = (operand(read, one) for one in parameters)
        inputs = [one.name for one in self.body.inputs]
        if index not in {inputs[place] for place in counters}:
            return None
        if source in inputs:  # a variable that every step leaves as it is
            place = inputs.index(source)
            given = self.initial[place]
            if self.body.outputs[place] != source or not isinstance(given, Reference):
                return None
            source = given.name
        kind = self.types.get(source)
        if isinstance(kind, ListType):
            return source if read.type == "list_read" and (kind.length or 0) >= steps else None
        axis = self.within.ints(read, "axis") or [0]
        fits = isinstance(kind, TensorType) and len(kind.shape) == 3 and (kind.shape[0] or 0) >= steps
        plain = self.within.ints(read, "batch_dims") in (None, [0])
        return source if fits and plain and axis == [0] and read.type == "gather" else None


@dataclass(frozen=True, slots=True)
class _Sum:
    """``Σ weights[name] · name + bias`` over values [batch, size]; weights are [rows, size]."""

    weights: Mapping[str, Array]
    bias: npt.NDArray[np.float32]

    @staticmethod
    def of(name: str, definitions: Definitions, rows: int, depth: int = 0) -> _Sum | None:
        """What a value of ``rows`` columns is the sum of; None where it is something else, or of too many."""
        operation = definitions.producers.get(name)
        if operation is None or depth > _MAX_DEPTH:
            return None
        if operation.type == "add":
            return _Sum._added(operation, definitions, rows, depth + 1)
        if operation.type == "linear":
            weight, bias = (definitions.constant(operation, one) for one in ("weight", "bias"))
            return _Sum._product(operation, definitions, weight, bias, rows)
        if operation.type == "matmul" and definitions.ints(operation, "transpose_x") in (None, [0]):
            weight = definitions.constant(operation, "y")
            is_rows = definitions.ints(operation, "transpose_y") == [1]
            matrix = weight if is_rows or not isinstance(weight, np.ndarray) else weight.T
            return _Sum._product(operation, definitions, matrix, None, rows)
        return None

    @staticmethod
    def _added(operation: Operation, definitions: Definitions, rows: int, depth: int) -> _Sum | None:
        for constant, other in (("y", "x"), ("x", "y")):
            value = definitions.constant(operation, constant)
            if isinstance(value, np.ndarray | np.generic):
                inner = _Sum.of(operand(operation, other), definitions, rows, depth)
                if inner is None or value.size not in (1, rows):
                    return None
                return replace(inner, bias=inner.bias + np.asarray(value, np.float32).ravel())
        first, second = (_Sum.of(operand(operation, one), definitions, rows, depth) for one in ("x", "y"))
        if first is None or second is None or first.weights.keys() & second.weights.keys():
            return None
        return _Sum({**first.weights, **second.weights}, first.bias + second.bias)

    @staticmethod
    def _product(
        operation: Operation, definitions: Definitions, weight: object, bias: object, rows: int
    ) -> _Sum | None:
        if not isinstance(weight, np.ndarray) or weight.dtype.kind != "f":
            return None
        if weight.ndim != 2 or len(weight) != rows:
            return None
        given = np.zeros(rows, np.float32) if bias is None else np.asarray(bias, np.float32).ravel()
        name = operand(operation, "x")
        joined = definitions.producer(name, "concat")
        names = [name] if joined is None else definitions.operands(joined, "values")
        sizes = [definitions.shapes.get(one, (None,))[-1] or 0 for one in names]
        beside = joined is None or definitions.ints(joined, "axis") in ([1], [-1])
        plain = joined is None or definitions.ints(joined, "interleave") in (None, [0])
        if not beside or not plain or sum(sizes) != weight.shape[1] or len(set(names)) != len(names):
            return None
        if given.size != rows:
            return None
        parts = np.split(weight, np.cumsum(sizes)[:-1], axis=1)
        return _Sum(dict(zip(names, parts, strict=True)), given)
