"""Transformer blocks computed on rows, [batch, positions, 1, channels], as processors like them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from sd_mil.ir.program import Argument, Constant, Operation, Payload, Program, Reference, TensorType, Variable
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import CASTS_UNREAD, DECODED, FOLDED, IN_ORDER
from sd_mil.rewriting.views import Definitions

#: From columns to rows, and back.
_SWAP = (0, 3, 2, 1)
_UNARY = frozenset({"gelu", "relu", "sigmoid", "silu", "tanh"})
_BINARY = frozenset({"add", "mul", "sub"})
#: MIL's names of the dtypes that weights of a linear layer have.
_WEIGHTS = {"float16": "fp16", "float32": "fp32", "int8": "int8"}


@rewrites(
    requires=(IN_ORDER, DECODED, CASTS_UNREAD, FOLDED), ensures=(IN_ORDER, DECODED, CASTS_UNREAD, FOLDED)
)
def compute_in_rows(program: Program) -> Program:
    """Move what happens between [batch, channels, 1, positions] values to the transposed layout.

    Given::

        a = layer_norm(x, axes=[1])
        y = conv(a, weight [out, in, 1, 1], bias)

    Result::

        x_rows = transpose(x, [0, 3, 2, 1])
        a_rows = layer_norm(x_rows, axes=[3])
        y_rows = linear(a_rows, weight [out, in], bias)
        y      = transpose(y_rows, [0, 3, 2, 1])

    Element-wise operations and ``split`` follow; transposes that only undo each other lose their users. A
    linear layer of OpenVINO's keeps its weights in memory once, a convolution twice.
    """
    body = program.main.body
    layout = _Layout(Definitions.of(body))
    for operation in body.operations:
        layout.add(operation)
    main = replace(program.main, body=replace(body, operations=tuple(layout.operations)))
    return replace(program, functions={**program.functions, program.default_function: main})


@dataclass(slots=True)
class _Layout:
    """The rewritten operations so far, and under which name each value is known as rows."""

    definitions: Definitions
    operations: list[Operation] = field(default_factory=list)
    rows: dict[str, str] = field(default_factory=dict)

    def add(self, operation: Operation) -> None:
        """Write ``operation``, on rows if it can be."""
        if self._is_swap(operation):
            self._swap(operation)
            return
        rewrite = self._rewrite_of(operation)
        if rewrite is None:
            self.operations.append(operation)
            return
        self.operations.extend(rewrite(operation))
        for output in operation.outputs:
            self.rows[output.name] = _rows_name(output.name)
            self.operations.append(_transpose(_rows_name(output.name), output))

    def _is_swap(self, operation: Operation) -> bool:
        return operation.type == "transpose" and self.definitions.ints(operation, "perm") == list(_SWAP)

    def _swap(self, operation: Operation) -> None:
        """A transpose between the layouts: what it computes may be known already, under the other name."""
        source, result = self.definitions.operand(operation, "x"), operation.outputs[0]
        if source in self.rows:
            self.operations.append(
                Operation("identity", operation.name, {"x": (Reference(self.rows[source]),)}, (result,))
            )
            return
        self.operations.append(operation)
        self.rows[result.name] = source
        self.rows[source] = result.name

    def _rewrite_of(self, operation: Operation) -> Callable[[Operation], list[Operation]] | None:
        """How to write ``operation`` on rows; None when it stays as it is."""
        if not all(self._is_columns(output.name) for output in operation.outputs):
            return None
        if operation.type == "conv" and self._is_linear(operation):
            return self._linear
        if operation.type == "layer_norm" and self.definitions.ints(operation, "axes") in ([1], [-3]):
            return self._layer_norm if self._is_columns(self.definitions.operand(operation, "x")) else None
        if operation.type == "split" and self._starts_as_rows(operation, ("x",)):
            return self._split if self.definitions.ints(operation, "axis") in ([1], [-3]) else None
        if operation.type == "dequantize" and "output_dtype" in operation.inputs:
            return self._elementwise if self.definitions.operand(operation, "input") in self.rows else None
        if operation.type in _UNARY and self._starts_as_rows(operation, ("x",)):
            return self._elementwise
        if operation.type in _BINARY and self._starts_as_rows(operation, ("x", "y")):
            return self._elementwise
        return None

    def _is_columns(self, name: str) -> bool:
        shape = self.definitions.shapes.get(name, ())
        return len(shape) == 4 and shape[2] == 1 and None not in shape

    def _starts_as_rows(self, operation: Operation, parameters: tuple[str, ...]) -> bool:
        """Whether an operand is known as rows, and the others are scalars or of the result's shape."""
        shape = self.definitions.shapes[operation.outputs[0].name]
        names = [self.definitions.operand(operation, parameter) for parameter in parameters]
        if operation.type == "split":
            return names[0] in self.rows
        fits = all(
            self.definitions.shapes.get(name) == shape or self._is_scalar(operation, parameter)
            for name, parameter in zip(names, parameters, strict=True)
        )
        return fits and any(name in self.rows for name in names)

    def _is_scalar(self, operation: Operation, parameter: str) -> bool:
        value = self.definitions.constant(operation, parameter)
        return isinstance(value, np.ndarray | np.generic) and value.ndim == 0

    def _is_linear(self, operation: Operation) -> bool:
        """Whether a convolution is one matrix product: 1x1, one group, unit strides, no padding."""
        weight = self._weight(operation)
        ints = self.definitions.ints
        return (
            isinstance(weight, np.ndarray)
            and weight.dtype.name in _WEIGHTS
            and weight.ndim == 4
            and weight.shape[2:] == (1, 1)
            and self._is_columns(self.definitions.operand(operation, "x"))
            and set(ints(operation, "strides") or [1]) == {1}
            and ints(operation, "groups") in (None, [1])
            and not any(ints(operation, "pad") or ())
        )

    def _linear(self, operation: Operation) -> list[Operation]:
        weight = np.asarray(self._weight(operation))
        matrix = weight.reshape(weight.shape[:2])
        dtype = _WEIGHTS[matrix.dtype.name]
        constant = Constant(TensorType(dtype, matrix.shape), matrix, stored=matrix.nbytes)
        given = self._dequantized(operation, constant) if dtype == "int8" else constant
        inputs: dict[str, tuple[Argument, ...]] = {"x": self._as_rows(operation, "x"), "weight": (given,)}
        if "bias" in operation.inputs:
            inputs["bias"] = operation.inputs["bias"]
        return [_on_rows(operation, "linear", inputs)]

    def _weight(self, operation: Operation) -> Payload | None:
        """The constant weight, or the integers of one that is dequantized."""
        dequantize = self.definitions.producer(self.definitions.operand(operation, "weight"), "dequantize")
        if dequantize is None:
            return self.definitions.constant(operation, "weight")
        return self.definitions.constant(dequantize, "input")

    def _dequantized(self, operation: Operation, matrix: Constant) -> Reference:
        """``matrix`` times the scales of the weight that it is a reshaped form of."""
        dequantize = self.definitions.producers[self.definitions.operand(operation, "weight")]
        name = f"{operation.outputs[0].name}_matrix"
        output = Variable(name, TensorType(dequantize.outputs[0].type.dtype, matrix.type.shape))
        inputs = {**dequantize.inputs, "input": (matrix,)}
        self.operations.append(Operation("dequantize", name, inputs, (output,)))
        return Reference(name)

    def _layer_norm(self, operation: Operation) -> list[Operation]:
        inputs = {**operation.inputs, "x": self._as_rows(operation, "x"), "axes": (_ints(3),)}
        return [_on_rows(operation, "layer_norm", inputs)]

    def _split(self, operation: Operation) -> list[Operation]:
        axis = Constant(TensorType("int32", ()), np.array(3, dtype=np.int32))
        inputs = {**operation.inputs, "x": self._as_rows(operation, "x"), "axis": (axis,)}
        return [_on_rows(operation, "split", inputs)]

    def _elementwise(self, operation: Operation) -> list[Operation]:
        operands = {
            parameter: self._as_rows(operation, parameter)
            for parameter in ("x", "y", "input")
            if parameter in operation.inputs and not self._is_scalar(operation, parameter)
        }
        return [_on_rows(operation, operation.type, {**operation.inputs, **operands})]

    def _as_rows(self, operation: Operation, parameter: str) -> tuple[Argument, ...]:
        """The operand as rows, transposed now if it was not needed so before."""
        name = self.definitions.operand(operation, parameter)
        if name not in self.rows:
            shape = self.definitions.shapes[name]
            dtype = operation.outputs[0].type.dtype
            swapped = Variable(_rows_name(name), TensorType(dtype, tuple(shape[axis] for axis in _SWAP)))
            self.operations.append(_transpose(name, swapped))
            self.rows[name] = swapped.name
        return (Reference(self.rows[name]),)


def _rows_name(name: str) -> str:
    return f"{name}_as_rows"


def _ints(*values: int) -> Constant:
    return Constant(TensorType("int32", (len(values),)), np.array(values, dtype=np.int32))


def _transpose(source: str, output: Variable) -> Operation:
    inputs: dict[str, tuple[Argument, ...]] = {"x": (Reference(source),), "perm": (_ints(*_SWAP),)}
    return Operation("transpose", output.name, inputs, (output,))


def _on_rows(operation: Operation, op_type: str, inputs: dict[str, tuple[Argument, ...]]) -> Operation:
    """``operation`` with results of the other layout."""
    outputs = tuple(
        Variable(
            _rows_name(output.name),
            TensorType(output.type.dtype, tuple(output.type.shape[axis] for axis in _SWAP)),
        )
        for output in operation.outputs
    )
    return Operation(op_type, _rows_name(operation.name), inputs, outputs)
