"""Small networks of layers, for tests that run them in the reference engine."""

import numpy as np
from sd_mil import (
    Block,
    Constant,
    Function,
    Operation,
    Program,
    Reference,
    TensorType,
    Variable,
)
from sd_mil.engines import Reference as ReferenceEngine

ENGINE = ReferenceEngine()
RNG = np.random.default_rng(0)


def const(name, value):
    value = np.asarray(value, np.float32)
    kind = TensorType("fp32", value.shape)
    return Operation("const", name, {}, (Variable(name, kind),), {"val": Constant(kind, value)})


def flag(value):
    if isinstance(value, str):
        return Constant(TensorType("string", ()), value)
    dtype = {bool: "bool", int: "int32", tuple: "int32"}[type(value)]
    array = np.array(value, np.bool_ if dtype == "bool" else np.int32)
    return Constant(TensorType(dtype, array.shape), array)


def layer(kind, name, shape, inputs, /, **flags):
    given = {key: (Reference(value),) for key, value in inputs.items()}
    given |= {key: (flag(value),) for key, value in flags.items()}
    return Operation(kind, name, given, (Variable(name, TensorType("fp32", shape)),))


def program(shape, *operations, output):
    x = Variable("x", TensorType("fp32", shape))
    return Program({"main": Function("main", "CoreML7", Block((x,), operations, (output,)))})


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


CONV = {"strides": (1, 1), "pad_type": "custom", "pad": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}
