"""Weights in the forms of iOS 18 as weights in those of iOS 16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_mil.constexpr import decode, is_compressed, pack
from sd_mil.ir.opsets import first_with, gone_with
from sd_mil.ir.program import (
    Argument,
    Constant,
    Function,
    Operation,
    Program,
    StateType,
    TensorType,
)
from sd_mil.ir.targets import OPSETS
from sd_mil.ir.uses import constants_of, live_operations, names_used, with_operations
from sd_mil.rewriting.building import named
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import IN_ORDER

Array: TypeAlias = "npt.NDArray[Any]"

#: The opset that results: the last with the forms of iOS 16.
_RESULT = "CoreML7"
_NEWEST = OPSETS[_RESULT].number
#: Widths of an index in the form of iOS 16.
_WIDTHS = (1, 2, 4, 6, 8)


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER,))
def lower_palettes(program: Program) -> Program:
    """Write compressed weights as iOS 16 has them, and the function in the operations of iOS 17.

    Given::   w = constexpr_lut_to_dense(indices=uint4[...], lut=fp16[1, 1, 16, 1])
    Result::  w = constexpr_lut_to_dense()[indices=uint8[...], lut=fp16[16], shape=[...]]

    A table of the whole weight keeps its indices. Tables of groups and of vectors, scales of channels and
    sparse tables become one table of up to 256 entries, if they decode to no more different numbers; 8-bit
    integers with scales of a tensor or of channels become ``constexpr_affine_dequantize``. Weights decode to
    the same bits. Where :func:`palette_obstacles` finds something, the program is left alone: an opset has
    the one form or the other.
    """
    weights = _Weights(program)
    if any(_obstacles(program, weights)):
        return program
    made = with_operations(program, weights.lowered())
    body = replace(made.main.body, operations=live_operations(made.main.body))
    main = replace(made.main, opset=_RESULT, body=body)
    return replace(made, functions={**made.functions, made.default_function: main})


def palette_obstacles(program: Program) -> list[str]:
    """Why the default function cannot be written in the forms of iOS 16, each as half a sentence."""
    return list(_obstacles(program, _Weights(program)))


def _obstacles(program: Program, weights: _Weights) -> Iterator[str]:
    main = program.main
    if main.opset not in OPSETS or OPSETS[main.opset].number <= _NEWEST:
        yield f"it is written in {main.opset}, which has no other form"
        return
    yield from _foreign(program, main)
    for name in weights.without_form():
        yield f"{name} decodes to more than 256 different numbers, for which iOS 16 has no table"


def _foreign(program: Program, main: Function) -> Iterator[str]:
    """Operations that stay and that iOS 17 has not, and states."""
    if any(isinstance(variable.type, StateType) for variable in main.inputs):
        yield "it has states, which iOS 17 has not"
    kinds = {
        one.type for one in program.operations() if not is_compressed(one.type) and first_with(one) > _NEWEST
    }
    for kind in sorted(kinds):
        yield f"it uses {kind}, which iOS 17 has not"
    if any(gone_with(one) is not None for one in program.operations() if not is_compressed(one.type)):
        yield "it uses a form of an operation that iOS 17 has no more"
    if any(is_compressed(one.type) for outer in main.body.operations for one in _inner(outer)):
        yield "weights are decoded in a nested block"


def _inner(operation: Operation) -> Iterator[Operation]:
    for block in operation.blocks:
        for one in block.operations:
            yield one
            yield from _inner(one)


class _Weights:
    """The compressed weights of one function, and their forms of iOS 16."""

    def __init__(self, program: Program) -> None:
        body = program.main.body
        self._constants = constants_of(body.operations)
        self._producers = {out.name: one for one in body.operations for out in one.outputs}
        read = set(body.outputs)
        for operation in body.operations:
            if not is_compressed(operation.type):
                read |= names_used(operation)
        self._operations = body.operations
        self._read = frozenset(read)
        self._forms: dict[int, Operation | None] = {}

    def lowered(self) -> Iterator[Operation]:
        """All operations; decoders that only other decoders read are gone."""
        for operation in self._operations:
            if not is_compressed(operation.type):
                yield operation
            elif self._is_read(operation) and (form := self._form(operation)) is not None:
                yield form

    def without_form(self) -> Iterator[str]:
        """The names of weights that iOS 16 cannot hold, compressed as they are."""
        for operation in self._operations:
            if is_compressed(operation.type) and self._is_read(operation) and self._form(operation) is None:
                yield operation.outputs[0].name

    def _is_read(self, operation: Operation) -> bool:
        return any(output.name in self._read for output in operation.outputs)

    def _form(self, operation: Operation) -> Operation | None:
        if id(operation) not in self._forms:
            self._forms[id(operation)] = self._made(operation)
        return self._forms[id(operation)]

    def _made(self, operation: Operation) -> Operation | None:
        """The decoder in a form of iOS 16; None where there is none."""
        if len(operation.outputs) != 1:
            return None
        if first_with(operation) <= _NEWEST:
            return operation
        made = None
        if operation.type == "constexpr_lut_to_dense":
            made = self._plain_table(operation)
        elif operation.type == "constexpr_blockwise_shift_scale":
            made = self._affine(operation)
        return made or self._one_table(operation)

    def _plain_table(self, operation: Operation) -> Operation | None:
        """One table for the whole weight: the same bits in other places."""
        indices, lut = (self._given(operation, name) for name in ("indices", "lut"))
        if indices is None or lut is None or lut.type.dtype not in ("fp16", "fp32"):
            return None
        table, shape = np.asarray(lut.value), indices.type.shape
        bits = int(indices.type.dtype.removeprefix("uint") or 0)
        if table.size != 2**bits or bits not in _WIDTHS or operation.outputs[0].type.shape != shape:
            return None
        return _table(operation, np.asarray(indices.value).reshape(-1), table.reshape(-1))

    def _affine(self, operation: Operation) -> Operation | None:
        data, scale = (self._given(operation, name) for name in ("data", "scale"))
        offset = self._given(operation, "offset")
        if data is None or scale is None or data.type.dtype not in ("int8", "uint8"):
            return None
        counts = [size or 0 for size in scale.type.shape]
        channels = [axis for axis, count in enumerate(counts) if count > 1]
        if len(channels) > 1 or scale.type.dtype not in ("fp16", "fp32"):
            return None
        if any(counts[axis] != data.type.shape[axis] for axis in channels):
            return None
        if offset is not None and offset.type.dtype != data.type.dtype:
            return None
        return _affine(operation, data, scale, offset, channels[0] if channels else 0)

    def _one_table(self, operation: Operation) -> Operation | None:
        """Whatever decodes to few different numbers."""
        output = operation.outputs[0]
        decoded = np.ascontiguousarray(self._decoded(operation)[output.name].value)
        if decoded.dtype not in (np.float16, np.float32):
            return None
        bits = decoded.reshape(-1).view(np.uint16 if decoded.dtype == np.float16 else np.uint32)
        entries, indices = _indexed(bits)
        width = next((one for one in _WIDTHS if len(entries) <= 2**one), None)
        if width is None:
            return None
        table = np.zeros(2**width, bits.dtype)
        table[: len(entries)] = entries
        return _table(operation, pack(indices.astype(np.uint8), width), table.view(decoded.dtype))

    def _decoded(self, operation: Operation) -> dict[str, Constant]:
        def find(argument: Argument) -> Constant | None:
            if isinstance(argument, Constant):
                return argument
            producer = self._producers.get(argument.name)
            if producer is not None and is_compressed(producer.type):
                return self._decoded(producer)[argument.name]
            return self._constants.get(argument.name)

        return decode(operation, find)

    def _given(self, operation: Operation, name: str) -> Constant | None:
        given = operation.inputs.get(name, ())
        if len(given) != 1:
            return operation.attributes.get(name)
        argument = given[0]
        return argument if isinstance(argument, Constant) else self._constants.get(argument.name)


def _indexed(bits: Array) -> tuple[Array, Array]:
    """The different numbers in order, and which of them each is; of half precision by counting."""
    if bits.dtype == np.uint32:
        entries, indices = np.unique(bits, return_inverse=True)
        return entries, indices
    entries = np.flatnonzero(np.bincount(bits, minlength=1 << 16)).astype(np.uint16)
    places = np.zeros(1 << 16, np.uint16)
    places[entries] = np.arange(len(entries), dtype=np.uint16)
    return entries, places[bits]


def _table(operation: Operation, packed: Array, table: Array) -> Operation:
    shape = np.array([size or 0 for size in operation.outputs[0].type.shape], np.uint32)
    attributes = {
        **named(operation.name),
        "indices": _stored(packed, "uint8"),
        "lut": _stored(table, operation.outputs[0].type.dtype),
        "shape": Constant(TensorType("uint32", shape.shape), shape),
    }
    return replace(operation, type="constexpr_lut_to_dense", inputs={}, attributes=attributes)


def _affine(
    operation: Operation, data: Constant, scale: Constant, offset: Constant | None, axis: int
) -> Operation:
    scales: Array = np.asarray(scale.value).reshape(-1)
    zeros: Array = np.zeros(scales.shape, np.asarray(data.value).dtype)
    if offset is not None:
        zeros = np.broadcast_to(np.asarray(offset.value).reshape(-1), scales.shape)
    if scales.size == 1:
        scales, zeros = scales.reshape(()), zeros.reshape(())
    attributes = {
        **named(operation.name),
        "quantized_data": data,
        "zero_point": _stored(np.array(zeros), data.type.dtype),
        "scale": _stored(scales, scale.type.dtype),
        "axis": Constant(TensorType("int32", ()), np.array(axis, np.int32)),
    }
    return replace(operation, type="constexpr_affine_dequantize", inputs={}, attributes=attributes)


def _stored(array: Array, dtype: str) -> Constant:
    """In the weight file, but for a single number."""
    return Constant(TensorType(dtype, array.shape), array, stored=array.nbytes if array.ndim else 0)
