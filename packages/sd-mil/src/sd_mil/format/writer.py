"""From a program to an ``.mlpackage``: the inverse of the reader, with numpy and nothing else.

What is written is what is given: types, names and order are not checked, so that readers can be tested with
programs that lie. :func:`sd_mil.read_package` checks.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sd_mil.format.description_writer import encode_description
from sd_mil.format.encoding import field, integer, mapping, text, varint
from sd_mil.ir.dtypes import BLOB_DTYPES, PROTO_DTYPES
from sd_mil.ir.ports import Description
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

_AUTHOR = "com.apple.CoreML"
_ALIGNMENT = 64
_PROTO_NUMBERS = {name: number for number, name in PROTO_DTYPES.items()}
_BLOB_NUMBERS = {name: number for number, name in BLOB_DTYPES.items()}


def write_package(
    path: str | os.PathLike[str],
    program: Program,
    description: Description | Mapping[str, Description],
    *,
    version: int = 7,
) -> Path:
    """Write a folder that ``read_package`` and coremltools read; constants with ``stored`` go to weight.bin.

    weight.bin is put together in memory: this is for examples, tests and small models. A program of several
    functions has a description for each, by name. ``version`` is the specification version: 6 is iOS 15,
    7 iOS 16, 8 iOS 17, 9 iOS 18.

    Raises:
        FileExistsError: there is something at the path.
    """
    root = Path(path)
    root.mkdir(parents=True)
    folder = root / "Data" / _AUTHOR
    (folder / "weights").mkdir(parents=True)
    blobs = bytearray((0).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(_ALIGNMENT - 8))
    model = encode_model(program, description, blobs, version=version)
    (folder / "model.mlmodel").write_bytes(model)
    (folder / "weights" / "weight.bin").write_bytes(blobs)
    (root / "Manifest.json").write_text(json.dumps(_manifest(), indent=4))
    return root


def _manifest() -> dict[str, object]:
    model, weights = (str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in ("model.mlmodel", "weights"))
    entries = {
        model: _item("model.mlmodel", "CoreML Model Specification"),
        weights: _item("weights", "CoreML Model Weights"),
    }
    return {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": model}


def _item(name: str, description: str) -> dict[str, str]:
    return {"author": _AUTHOR, "description": description, "name": name, "path": f"{_AUTHOR}/{name}"}


def encode_model(
    program: Program,
    description: Description | Mapping[str, Description],
    blobs: bytearray,
    *,
    version: int = 7,
) -> bytes:
    """``Model`` of Model.proto. Stored constants are appended to ``blobs``, the content of weight.bin."""
    described = (
        encode_description(description, {}, "")
        if isinstance(description, Description)
        else encode_description(description[program.default_function], description, program.default_function)
    )
    return integer(1, version) + field(2, described) + field(502, _program(program, blobs))


def _program(program: Program, blobs: bytearray) -> bytes:
    functions = ((name, _function(function, blobs)) for name, function in program.functions.items())
    return integer(1, 1) + mapping(2, functions)


def _function(function: Function, blobs: bytearray) -> bytes:
    body = Block((), function.body.operations, function.body.outputs)
    inputs = b"".join(field(1, _variable(one)) for one in function.inputs)
    return inputs + text(2, function.opset) + mapping(3, [(function.opset, _block(body, blobs))])


def _block(block: Block, blobs: bytearray) -> bytes:
    parts = [field(1, _variable(variable)) for variable in block.inputs]
    parts += [text(2, name) for name in block.outputs]
    parts += [field(3, _operation(operation, blobs)) for operation in block.operations]
    return b"".join(parts)


def _operation(operation: Operation, blobs: bytearray) -> bytes:
    attributes: Mapping[str, Constant] = operation.attributes
    if "name" not in attributes:
        attributes = {**attributes, "name": Constant(TensorType("string", ()), operation.name)}
    inputs = [
        (name, b"".join(field(1, _argument(one, blobs)) for one in given))
        for name, given in operation.inputs.items()
    ]
    return (
        text(1, operation.type)
        + mapping(2, inputs)
        + b"".join(field(3, _variable(variable)) for variable in operation.outputs)
        + b"".join(field(4, _block(block, blobs)) for block in operation.blocks)
        + mapping(5, ((name, _value(value, blobs)) for name, value in attributes.items()))
    )


def _argument(argument: Argument, blobs: bytearray) -> bytes:
    if isinstance(argument, Constant):
        return field(2, _value(argument, blobs))
    return text(1, argument.name)


def _variable(variable: Variable) -> bytes:
    return text(1, variable.name) + field(2, _type(variable.type))


def _type(kind: ValueType) -> bytes:
    if isinstance(kind, ListType):
        return field(2, field(1, _type(kind.element)) + field(2, _dimension(kind.length)))
    if isinstance(kind, StateType):
        return field(5, field(1, _type(kind.tensor)))
    if isinstance(kind, DictionaryType):
        return field(4, field(1, _type(kind.key)) + field(2, _type(kind.value)))
    tensor = integer(1, _PROTO_NUMBERS[kind.dtype]) + integer(2, len(kind.shape))
    if isinstance(kind, UnrankedType):
        return field(1, tensor + field(3, field(2, integer(1, 1))))
    return field(1, tensor + b"".join(field(3, _dimension(size)) for size in kind.shape))


def _dimension(size: int | None) -> bytes:
    return field(2, b"") if size is None else field(1, integer(1, size))


def _value(constant: Constant, blobs: bytearray) -> bytes:
    if isinstance(constant.value, Mapping):
        return _dictionary(constant.value, blobs)
    if isinstance(constant.type, ListType):
        return _list(constant.value, constant.type, blobs)
    if constant.stored:
        blob = text(1, WEIGHT_FILE) + integer(2, _append_blob(constant, blobs))
        return field(2, _type(constant.type)) + field(5, blob)
    return field(2, _type(constant.type)) + field(3, field(1, _tensor_value(constant)))


def _list(values: Payload, kind: ListType, blobs: bytearray) -> bytes:
    elements = values if isinstance(values, tuple) else np.asarray(values)
    encoded = (_value(Constant(kind.element, element), blobs) for element in elements)
    return field(2, _type(kind)) + field(3, field(3, b"".join(field(1, one) for one in encoded)))


def _dictionary(pairs: Mapping[str, str], blobs: bytearray) -> bytes:
    kind = TensorType("string", ())
    entries = (
        field(
            1, field(1, _value(Constant(kind, key), blobs)) + field(2, _value(Constant(kind, value), blobs))
        )
        for key, value in pairs.items()
    )
    dictionary = field(4, field(1, _type(kind)) + field(2, _type(kind)))
    return field(2, dictionary) + field(3, field(4, b"".join(entries)))


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


def _append_blob(constant: Constant, blobs: bytearray) -> int:
    """Append record and data, count the blob in the header, and return where the record is."""
    data = np.asarray(constant.value).tobytes()
    offset = len(blobs)
    fields = (
        (0xDEADBEEF, 4),
        (_BLOB_NUMBERS[constant.type.dtype], 4),
        (len(data), 8),
        (offset + _ALIGNMENT, 8),
    )
    record = b"".join(value.to_bytes(size, "little") for value, size in fields)
    blobs += record + bytes(_ALIGNMENT - len(record)) + data + bytes(-len(data) % _ALIGNMENT)
    blobs[:4] = (int.from_bytes(blobs[:4], "little") + 1).to_bytes(4, "little")
    return offset
