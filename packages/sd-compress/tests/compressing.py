"""Small programs for the tests of compression, and weights read back from what was written."""

import functools
from collections.abc import Mapping

import numpy as np
from sd_mil import (
    Block,
    Constant,
    Description,
    Function,
    Operation,
    Program,
    Reference,
    TensorType,
    Variable,
    read_package,
    write_package,
)
from sd_mil.constexpr import decode

OPSETS = {15: ("CoreML5", 6), 16: ("CoreML6", 7), 17: ("CoreML7", 8), 18: ("CoreML8", 9)}
DTYPES = {"float16": "fp16", "float32": "fp32"}


def const(name, array):
    """A weight in the weight file."""
    kind = TensorType(DTYPES[array.dtype.name], array.shape)
    return Operation("const", name, {}, (Variable(name, kind),), {"val": Constant(kind, array, array.nbytes)})


def flag(value):
    return Constant(TensorType("bool", ()), np.bool_(value))


def use(kind, weight, parameter="weight", **flags):
    """An operation that takes the weight; what else it takes plays no part here."""
    name = f"{weight}_used"
    inputs = {parameter: (Reference(weight),), **{key: (flag(one),) for key, one in flags.items()}}
    return Operation(kind, name, inputs, (Variable(name, TensorType("fp16", (1,))),))


def function(name, weights, *, opset=16):
    """Weights by name: an array that a ``conv`` (of rank 4) or ``linear`` takes, or that and its user."""
    operations = []
    for weight, given in weights.items():
        array, user = given if isinstance(given, tuple) else (given, None)
        kind = "conv" if array.ndim == 4 else "linear"
        operations += [const(weight, array), user or use(kind, weight)]
    return Function(name, OPSETS[opset][0], Block((), tuple(operations), ()))


def program(weights, *, opset=16):
    return Program({"main": function("main", weights, opset=opset)})


def written(path, made, *, opset=16):
    """The program after it was written and read again."""
    descriptions = {name: Description((), ()) for name in made.functions}
    given = descriptions if len(descriptions) > 1 else Description((), ())
    write_package(path, made, given, version=OPSETS[opset][1])
    return read_package(path).program


def decoded(made, name=None) -> Mapping[str, np.ndarray]:
    """Every float constant of a function, by name, whatever it is made of."""
    known = {}
    for operation in made.operations(name):
        if operation.type == "const":
            known[operation.outputs[0].name] = operation.attributes["val"]
        elif operation.type.startswith("constexpr_"):
            known |= decode(operation, functools.partial(_constant, known))
    return {
        name: np.asarray(one.value).reshape(one.type.shape)
        for name, one in known.items()
        if one.type.dtype in DTYPES.values()
    }


def _constant(known, argument):
    return argument if isinstance(argument, Constant) else known[argument.name]


def kinds(made, name=None):
    """The types of the operations that decode, in order."""
    return [one.type for one in made.operations(name) if one.type.startswith("constexpr_")]
