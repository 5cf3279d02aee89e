"""A compressed constant on its own: what an engine that does not interpret needs of the decoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from sd_mil.constexpr.packing import pack
from sd_mil.engines.reference.payload import unpacked
from sd_mil.engines.reference.plan import plan, where
from sd_mil.engines.reference.registry import Array
from sd_mil.errors import PackageError
from sd_mil.ir.dtypes import NUMPY_DTYPES, SUB_BYTE_BITS
from sd_mil.ir.program import Argument, Block, Constant, Operation, TensorType, Variable

#: What sizes that do not fit each other make numpy raise.
_FAILURES = (ArithmeticError, LookupError, MemoryError, TypeError, ValueError)


def decode(operation: Operation, constant: Callable[[Argument], Constant | None]) -> dict[str, Constant]:
    """What a ``constexpr_*`` operation stands for, by output name: constants of the declared types.

    ``constant`` finds the constant that an argument is or refers to. The bits are those of coremltools.

    Raises:
        UnsupportedOpError: an operation, parameter or choice that is not known.
        PackageError: an argument is not a constant, or the arguments do not fit each other.
    """
    inputs = {
        name: tuple(_known(one, operation, constant) for one in given)
        for name, given in operation.inputs.items()
    }
    names = tuple(variable.name for variable in operation.outputs)
    (step,) = plan(Block((), (dataclasses.replace(operation, inputs=inputs),), names)).steps
    arguments = {name: unpacked(_known(one, operation, constant)) for name, (one,) in step.arguments.items()}
    try:
        with np.errstate(all="ignore"):  # what fp16 cannot hold is infinite, as coremltools has it
            results = step.op.function(**arguments)
    except _FAILURES as error:
        raise PackageError(f"expected {where(operation)} to be decodable, got: {error}") from error
    arrays = tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))
    if len(arrays) != len(operation.outputs):
        raise PackageError(f"expected {len(arrays)} outputs of {where(operation)}")
    pairs = zip(operation.outputs, arrays, strict=True)
    return {variable.name: _declared(array, variable, operation) for variable, array in pairs}


def _known(
    argument: Argument, operation: Operation, constant: Callable[[Argument], Constant | None]
) -> Constant:
    found = constant(argument)
    if found is None:
        raise PackageError(f"expected constants only, got a computed argument of {where(operation)}")
    return found


def _declared(array: Array, variable: Variable, operation: Operation) -> Constant:
    """The array as a constant of the variable's type, packed if that is stored so; fp32 for bf16 and fp8."""
    if variable.type.shape != array.shape:
        raise PackageError(f"expected shape {list(array.shape)} of {where(operation)}")
    dtype = variable.type.dtype
    if dtype in SUB_BYTE_BITS:
        return Constant(variable.type, pack(array, SUB_BYTE_BITS[dtype]))
    if dtype not in NUMPY_DTYPES:
        return Constant(TensorType("fp32", array.shape), array.astype(np.float32, copy=False))
    with np.errstate(over="ignore"):
        return Constant(variable.type, array.astype(NUMPY_DTYPES[dtype], copy=False))
