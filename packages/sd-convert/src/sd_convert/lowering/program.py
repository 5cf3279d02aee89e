"""What coremltools' builder made, as a :class:`sd_mil.Program`.

Source: ``MILProtoExporter`` in coremltools' converters/mil/backend/mil/load.py, which is the tests' oracle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from sd_mil import Block, Constant, Function, Operation, Program, Reference, TensorType, Variable
from sd_mil.ir import NUMPY_DTYPES, Tensor, stored_bytes

from sd_convert.errors import LoweringError

#: coremltools keeps smaller constants inside the program instead of weight.bin, and those of other types.
SMALLEST_STORED: Final = 10
_STORED_DTYPES: Final = {
    7: ("fp16", "fp32", "uint8", "int8"),
    9: ("fp16", "fp32", "uint8", "int8", "uint16", "int16", "int32", "uint32"),
}

_NAME: Final = TensorType("string", ())


def program_of(function: Any, tensors: Mapping[str, Tensor], *, specification: int) -> Program:
    """The program whose one function, ``main``, is coremltools' ``function``.

    ``tensors``: what each constant holds that is a stand-in for a weight, by name. ``specification``: the
    version of the file format, 7 to 9.

    Raises:
        LoweringError: a value that is no tensor.
    """
    from coremltools import _OPSET

    stored = _STORED_DTYPES[max(version for version in _STORED_DTYPES if version <= specification)]
    body = Block(
        inputs=tuple(Variable(name, _type(var)) for name, var in function.inputs.items()),
        operations=tuple(_operations(function, tensors, stored)),
        outputs=tuple(var.name for var in function.outputs),
    )
    return Program({"main": Function("main", _OPSET[specification], body)})


def _operations(function: Any, tensors: Mapping[str, Tensor], stored: tuple[str, ...]) -> Iterator[Operation]:
    for operation in function.operations:
        outputs = tuple(Variable(var.name, _type(var)) for var in operation.outputs)
        attributes = {"name": Constant(_NAME, operation.name)}
        inputs: dict[str, tuple[Reference, ...]] = {}
        if operation.op_type == "const":
            attributes["val"] = _constant(operation.outputs[0], tensors, stored)
        else:
            inputs = {name: _references(bound) for name, bound in operation.inputs.items() if name[0] != "_"}
        yield Operation(operation.op_type, operation.name, inputs, outputs, attributes)


def _references(bound: Any) -> tuple[Reference, ...]:
    variables = bound if isinstance(bound, list | tuple) else (bound,)
    return tuple(Reference(var.name) for var in variables)


def _constant(var: Any, tensors: Mapping[str, Tensor], stored: tuple[str, ...]) -> Constant:
    kind, tensor = _type(var), tensors.get(var.name)
    shape = tuple(size for size in kind.shape if size is not None)
    if tensor is not None:
        in_file = math.prod(shape) >= SMALLEST_STORED
        return Constant(kind, tensor, stored_bytes(kind.dtype, shape) if in_file else 0)
    if isinstance(var.val, str):
        return Constant(kind, var.val)
    value = np.ascontiguousarray(np.asarray(var.val, NUMPY_DTYPES[kind.dtype])).reshape(shape)
    in_file = kind.dtype in stored and math.prod(shape) >= SMALLEST_STORED
    return Constant(kind, value, value.nbytes if in_file else 0)


def _type(var: Any) -> TensorType:
    from coremltools.converters.mil.mil import types

    kind = var.sym_type
    if types.is_tensor(kind):
        return TensorType(_dtype(kind.get_primitive()), tuple(map(int, kind.get_shape())))
    if types.is_scalar(kind) or types.is_str(kind):
        return TensorType(_dtype(kind), ())
    raise LoweringError(f"{var.name}: expected a tensor, got {types.builtin_to_string(kind)}")


def _dtype(primitive: Any) -> str:
    from coremltools.converters.mil.mil import types

    name = str(types.builtin_to_string(primitive))
    return "string" if name == "str" else name
