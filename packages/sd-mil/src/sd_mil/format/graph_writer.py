"""``Program`` of MIL.proto, written: the inverse of :mod:`sd_mil.format.graph`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sd_mil.format.blob_writer import BlobLayout
from sd_mil.format.encoding import field, integer, mapping, text, varint
from sd_mil.ir.dtypes import PROTO_DTYPES
from sd_mil.ir.program import (
    Argument,
    Block,
    Constant,
    DictionaryType,
    Function,
    ListType,
    Operation,
    Payload,
    Program,
    StateType,
    TensorType,
    UnrankedType,
    ValueType,
    Variable,
)

WEIGHT_FILE = "@model_path/weights/weight.bin"

_NUMBERS = {name: number for number, name in PROTO_DTYPES.items()}
_STRING = TensorType("string", ())


def encode_program(program: Program, layout: BlobLayout) -> bytes:
    """The message; stored constants are where ``layout`` has them."""
    encoder = _Encoder(layout)
    functions = ((name, encoder.function(function)) for name, function in program.functions.items())
    return integer(1, 1) + mapping(2, functions) + encoder.named(4, program.attributes) + program.unknown


class _Encoder:
    """The messages of MIL.proto, one method each. Types repeat thousands of times, and are encoded once."""

    def __init__(self, layout: BlobLayout) -> None:
        self._layout = layout
        self._types: dict[ValueType, bytes] = {}

    def function(self, function: Function) -> bytes:
        body = function.body
        bodies = {function.opset: replace(body, inputs=()), **function.specializations}
        inputs = b"".join(field(1, self._variable(variable)) for variable in function.inputs)
        encoded = mapping(3, ((opset, self._block(one)) for opset, one in bodies.items()))
        attributes = self.named(4, function.attributes)
        return inputs + text(2, function.opset) + encoded + attributes + function.unknown

    def named(self, number: int, constants: Mapping[str, Constant]) -> bytes:
        """A map of attributes."""
        return mapping(number, ((name, self._value(value)) for name, value in constants.items()))

    def _block(self, block: Block) -> bytes:
        parts = [field(1, self._variable(variable)) for variable in block.inputs]
        parts += [text(2, name) for name in block.outputs]
        parts += [field(3, self._operation(operation)) for operation in block.operations]
        return b"".join(parts) + self.named(4, block.attributes) + block.unknown

    def _operation(self, operation: Operation) -> bytes:
        inputs = (
            (name, b"".join([field(1, self._argument(argument)) for argument in arguments]))
            for name, arguments in operation.inputs.items()
        )
        return (
            text(1, operation.type)
            + mapping(2, inputs)
            + b"".join([field(3, self._variable(variable)) for variable in operation.outputs])
            + b"".join([field(4, self._block(block)) for block in operation.blocks])
            + self.named(5, operation.attributes)
            + operation.unknown
        )

    def _argument(self, argument: Argument) -> bytes:
        if isinstance(argument, Constant):
            return field(2, self._value(argument))
        return text(1, argument.name)

    def _variable(self, variable: Variable) -> bytes:
        return text(1, variable.name) + field(2, self._type(variable.type))

    def _value(self, constant: Constant) -> bytes:
        if constant.stored:
            place = text(1, WEIGHT_FILE) + integer(2, self._layout.offset(constant))
            return field(2, self._type(constant.type)) + field(5, place)
        value = constant.value
        if isinstance(value, Mapping):
            return self._dictionary(value)
        if isinstance(constant.type, ListType):
            return self._list(value, constant.type)
        return field(2, self._type(constant.type)) + field(3, field(1, _tensor_value(constant)))

    def _list(self, values: Payload, kind: ListType) -> bytes:
        elements = values if isinstance(values, tuple) else np.asarray(values)
        encoded = (self._value(Constant(kind.element, element)) for element in elements)
        return field(2, self._type(kind)) + field(3, field(3, b"".join(field(1, one) for one in encoded)))

    def _dictionary(self, pairs: Mapping[str, str]) -> bytes:
        entries = (
            field(1, field(1, self._text(key)) + field(2, self._text(value))) for key, value in pairs.items()
        )
        kind = field(4, field(1, self._type(_STRING)) + field(2, self._type(_STRING)))
        return field(2, kind) + field(3, field(4, b"".join(entries)))

    def _text(self, content: str) -> bytes:
        return self._value(Constant(_STRING, content))

    def _type(self, kind: ValueType) -> bytes:
        if kind not in self._types:
            self._types[kind] = _type(kind)
        return self._types[kind]


def _type(kind: ValueType) -> bytes:
    if isinstance(kind, ListType):
        return field(2, field(1, _type(kind.element)) + field(2, _dimension(kind.length)))
    if isinstance(kind, StateType):
        return field(5, field(1, _type(kind.tensor)))
    if isinstance(kind, DictionaryType):
        return field(4, field(1, _type(kind.key)) + field(2, _type(kind.value)))
    tensor = integer(1, _NUMBERS[kind.dtype]) + integer(2, len(kind.shape))
    if isinstance(kind, UnrankedType):
        return field(1, tensor + field(3, field(2, integer(1, 1))))
    return field(1, tensor + b"".join(field(3, _dimension(size)) for size in kind.shape))


def _dimension(size: int | None) -> bytes:
    return field(2, b"") if size is None else field(1, integer(1, size))


def _tensor_value(constant: Constant) -> bytes:
    """coremltools' choice of field: ints, bools and floats by kind, raw bytes for the rest."""
    value, dtype = constant.value, constant.type.dtype
    if dtype == "string":
        texts = (value,) if isinstance(value, str) else tuple(map(str, value))
        return field(4, b"".join(text(1, one) for one in texts))
    array = np.asarray(value)
    if dtype in ("int32", "int64", "bool"):
        kind = {"int32": 2, "int64": 5, "bool": 3}[dtype]
        return field(kind, field(1, b"".join(varint(int(one)) for one in array.ravel())))
    if dtype in ("fp32", "fp64"):
        return field({"fp32": 1, "fp64": 6}[dtype], field(1, array.tobytes()))
    return field(7, field(1, array.tobytes()))
