"""What a program does to its own weights before it uses them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sd_mil.ir.program import Constant, Operation, Program, TensorType, Variable
from sd_mil.ir.uses import constant_of, with_operations
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import DECODED, FOLDED, IN_ORDER
from sd_mil.rewriting.views import Definitions

_FLOATS = ("fp16", "fp32")


@rewrites(requires=(IN_ORDER, DECODED), ensures=(IN_ORDER, DECODED, FOLDED))
def fold_constants(program: Program) -> Program:
    """Turn the transposes, reshapes and casts of constants into constants.

    Given::   t = transpose(w, perm=[1, 0]); y = linear(x, weight=t)
    Result::  t = const(val=wᵀ); y = linear(x, weight=t)

    Folded by OpenVINO, a weight would be kept in fp32. A cast between float types leaves the weight as it is:
    both are computed in the same type.
    """
    body = program.main.body
    producers = dict(Definitions.of(body).producers)
    operations = []
    for operation in body.operations:
        folded = _folded(operation, Definitions(producers, {}))
        operations.append(operation if folded is None else folded)
        for output in operations[-1].outputs:
            producers[output.name] = operations[-1]
    return with_operations(program, operations)


def _folded(operation: Operation, definitions: Definitions) -> Operation | None:
    """A ``const`` instead of ``operation``; None when that is not possible."""
    source = definitions.producer(definitions.operand(operation, "x"), "const")
    weight = None if source is None else constant_of(source)
    if (
        weight is None
        or len(operation.outputs) != 1
        or not isinstance(weight.value, np.ndarray)
        or weight.value.dtype.kind != "f"
    ):
        return None
    array = _computed(operation, weight.value, definitions)
    (output,) = operation.outputs
    if array is None or array.shape != output.type.shape:
        return None
    kind = TensorType(weight.type.dtype, array.shape)
    value = Constant(kind, array, stored=array.nbytes)
    return Operation("const", operation.name, {}, (Variable(output.name, kind),), {"val": value})


def _computed(
    operation: Operation, weight: npt.NDArray[np.generic], definitions: Definitions
) -> npt.NDArray[np.generic] | None:
    """What ``operation`` makes of ``weight``, in its dtype; None when it is not one of those folded here."""
    if operation.type == "transpose":
        order = definitions.ints(operation, "perm")
        fits = order is not None and sorted(axis % weight.ndim for axis in order) == list(range(weight.ndim))
        return np.ascontiguousarray(weight.transpose(order)) if fits else None
    if operation.type in ("reshape", "expand_dims", "squeeze"):
        sizes = [size for size in operation.outputs[0].type.shape if size is not None]
        fits = len(sizes) == len(operation.outputs[0].type.shape) and math.prod(sizes) == weight.size
        return weight.reshape(sizes) if fits else None
    if operation.type == "cast" and operation.outputs[0].type.dtype in _FLOATS:
        return weight
    return None
