"""Attention of rank 3 as attention of rank 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

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
from sd_mil.ir.uses import operand, types_in, with_operations
from sd_mil.rewriting.building import Builder, named, replaced
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import IN_ORDER, RANK_4_ATTENTION
from sd_mil.rewriting.scores import FUSED, Attention, attentions, is_rank_3, kind_of
from sd_mil.rewriting.views import Definitions


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER, RANK_4_ATTENTION))
def lift_attention(program: Program) -> Program:
    """Give attention of rank 3 a first dimension of 1.

    Given::   s = matmul(q, k); w = softmax(s); y = matmul(w, v)
    Result::  q4, k4, v4 = expand_dims(·, axes=[0]); s4 = matmul(q4, k4); w4 = softmax(s4, axis=-1)
              y4 = matmul(w4, v4); y = squeeze(y4, axes=[0])

    Scales, masks and reshapes to [1, heads, queries, keys] and back, which stand between, are lifted too or
    fall away. The same sums in the same order: not a bit changes. The GPU of macOS 27.2 crashes on rank 3
    (MochiDiffusion#521).
    """
    body = program.main.body
    builder = Builder.beside(body)
    definitions, types = Definitions.of(body), types_in(body)
    made = [
        (found.operations, _Lifting(builder, definitions, types).of(found))
        for found in attentions(body)
        if is_rank_3(found)
    ]
    return with_operations(program, replaced(body, made))


class _Lifting:
    """One attention with a first dimension more; ``of`` is called once."""

    def __init__(self, builder: Builder, definitions: Definitions, types: Mapping[str, ValueType]) -> None:
        self._builder = builder
        self._definitions = definitions
        self._types = types
        self._lifted: dict[str, Variable] = {}

    def of(self, attention: Attention) -> tuple[Operation, ...]:
        """Its operations lifted, the last of which defines the result's own name."""
        builder = self._builder
        builder.operations = []
        for operation in attention.operations:
            self._lift(operation)
        result = attention.result
        lifted = self._lifted[result.name]
        axes = builder.integers(f"{result.name}_axes", (0,))
        inputs: dict[str, tuple[Argument, ...]] = {"x": (Reference(lifted.name),), "axes": (axes,)}
        last = attention.operations[-1]
        builder.operations.append(
            replace(last, type="squeeze", inputs=inputs, outputs=(result,), attributes=named(last.name))
        )
        return tuple(builder.operations)

    def _lift(self, operation: Operation) -> None:
        output = operation.outputs[0]
        source = self._lifted.get(operand(operation, "x"))
        kind = _with_one(kind_of(output))
        if operation.type == "reshape" and source is not None and source.type.shape == kind.shape:
            self._lifted[output.name] = source
            return
        inputs = {key: tuple(map(self._argument, given)) for key, given in operation.inputs.items()}
        if operation.type in ("matmul", FUSED):
            inputs |= {
                key: (self._expanded(given[0]),)
                for key, given in inputs.items()
                if key in ("x", "y", "query", "key", "value", "attn_mask")
            }
        if operation.type == "softmax":
            inputs["axis"] = (self._axis(operation),)
        if operation.type == "reshape":
            inputs["shape"] = (
                self._builder.integers(f"{output.name}_rank4_shape", (size or 0 for size in kind.shape)),
            )
        lifted = self._builder.value(f"{output.name}_rank4", kind)
        attributes = {**operation.attributes, **named(lifted.name)}
        self._builder.operations.append(
            replace(operation, name=lifted.name, inputs=inputs, outputs=(lifted,), attributes=attributes)
        )
        self._lifted[output.name] = lifted

    def _argument(self, argument: Argument) -> Argument:
        lifted = self._lifted.get(argument.name) if isinstance(argument, Reference) else None
        return argument if lifted is None else Reference(lifted.name)

    def _axis(self, softmax: Operation) -> Reference:
        """Counted from the end, so that it is the same axis of both ranks."""
        rank = len(softmax.outputs[0].type.shape)
        (axis,) = self._definitions.ints(softmax, "axis") or [-1]
        return self._builder.integer(
            f"{softmax.outputs[0].name}_rank4_axis", axis - rank if axis >= 0 else axis
        )

    def _expanded(self, argument: Argument) -> Argument:
        """What is not lifted yet and has three dimensions."""
        if isinstance(argument, Constant):
            kind: ValueType | None = argument.type
            argument = self._builder.const("operand", argument)
        else:
            kind = self._types.get(argument.name)  # none: it is one of the lifted
        if not isinstance(kind, TensorType) or len(kind.shape) != 3:
            return argument
        output = self._builder.value(f"{argument.name}_rank4", _with_one(kind))
        axes = self._builder.integers(f"{output.name}_axes", (0,))
        return self._builder.call("expand_dims", output, x=argument, axes=axes)


def _with_one(kind: TensorType) -> TensorType:
    return TensorType(kind.dtype, (1, *kind.shape)) if len(kind.shape) == 3 else kind
