"""Tiny programs for tests, put together from the package's own dataclasses."""

from pathlib import Path

import numpy as np
from sd_mil import (
    Block,
    Constant,
    Description,
    Function,
    Operation,
    Port,
    Program,
    Reference,
    TensorType,
    Variable,
    write_package,
)
from sd_mil.ir.dtypes import NUMPY_DTYPES

_MIL_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


def tensor(array, *, dtype=None, stored=False):
    """A constant holding an array, a string or strings."""
    if isinstance(array, str):
        return Constant(TensorType("string", ()), array)
    array = np.asarray(array)
    kind = TensorType(dtype or _MIL_NAMES[array.dtype], array.shape)
    return Constant(kind, array, stored=array.nbytes if stored else 0)


def const(name, array, *, stored=False):
    value = tensor(array, stored=stored)
    return Operation("const", name, {}, (Variable(name, value.type),), {**named(name), "val": value})


def named(name):
    """The attribute that tools give to every operation."""
    return {"name": Constant(TensorType("string", ()), name)}


def call(kind, name, out, **inputs):
    """An operation: inputs are names (text is a name), tuples of names, or constants."""
    arguments = {key: _arguments(value) for key, value in inputs.items()}
    return Operation(kind, name, arguments, (variable(name, out),), named(name))


def variable(name, declared):
    dtype, *shape = declared
    return Variable(name, TensorType(dtype, tuple(shape)))


def program(inputs, operations, outputs):
    """``inputs`` maps names to ``(dtype, *shape)``."""
    variables = tuple(variable(name, declared) for name, declared in inputs.items())
    return Program({"main": Function("main", "CoreML6", Block(variables, tuple(operations), tuple(outputs)))})


def description(made):
    """Ports as the program declares them."""
    visible = {one.name: one for one in made.main.inputs}
    for operation in made.main.body.operations:
        visible.update({one.name: one for one in operation.outputs})
    return Description(
        tuple(_port(one) for one in made.main.inputs),
        tuple(_port(visible[name]) for name in made.main.outputs),
    )


def affine():
    """y = x * w + b: w in weight.bin, b inline; float16 in, float32 out."""
    return program(
        {"x": ("fp16", 2, 3)},
        [
            const("w", np.array([1, 2, 3], np.float16), stored=True),
            const("b", np.array([[0.5], [-0.5]], np.float16)),
            const("kind", "fp32"),
            call("mul", "scaled", ("fp16", 2, 3), x="x", y="w"),
            call("add", "shifted", ("fp16", 2, 3), x="scaled", y="b"),
            call("cast", "y", ("fp32", 2, 3), x="shifted", dtype="kind"),
        ],
        ["y"],
    )


def write(folder, made=None, described=None, name="model.mlpackage") -> Path:
    made = affine() if made is None else made
    return write_package(folder / name, made, described or description(made)).path


def model_file(package) -> Path:
    return package / "Data" / "com.apple.CoreML" / "model.mlmodel"


def weight_file(package) -> Path:
    return package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def _arguments(value):
    values = value if isinstance(value, tuple) else (value,)
    return tuple(Reference(one) if isinstance(one, str) else one for one in values)


def _port(declared):
    sizes = tuple(size for size in declared.type.shape if size is not None)
    dtype = NUMPY_DTYPES.get(declared.type.dtype, np.dtype(np.float32)).name
    return Port(declared.name, sizes, dtype)
