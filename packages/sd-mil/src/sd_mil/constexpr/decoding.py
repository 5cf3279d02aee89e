"""A compressed constant on its own, for whoever reads a program: engines, passes, reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sd_mil.constexpr.codec import CODECS, Array, Codec
from sd_mil.constexpr.packing import pack
from sd_mil.constexpr.stored import unpacked
from sd_mil.errors import PackageError, UnsupportedOpError
from sd_mil.ir.dtypes import NUMPY_DTYPES, SUB_BYTE_BITS
from sd_mil.ir.program import Argument, Constant, Operation, TensorType, Variable, where

#: What sizes that do not fit each other make numpy raise.
_FAILURES = (ArithmeticError, LookupError, MemoryError, TypeError, ValueError)


def decode(operation: Operation, constant: Callable[[Argument], Constant | None]) -> dict[str, Constant]:
    """What a ``constexpr_*`` operation stands for, by output name: constants of the declared types.

    ``constant`` finds the constant that an argument is or refers to. The bits are those of coremltools.

    Raises:
        UnsupportedOpError: an operation, parameter or choice that is not known.
        PackageError: an argument is not a constant, or the arguments do not fit each other.
    """
    if operation.type not in CODECS:
        raise UnsupportedOpError(f"expected one of {', '.join(CODECS)}, got {where(operation)}")
    codec = CODECS[operation.type]
    arguments = _arguments(operation, codec, constant)
    try:
        with np.errstate(all="ignore"):  # what fp16 cannot hold is infinite, as coremltools has it
            results = codec.decode(**arguments)
    except _FAILURES as error:
        raise PackageError(f"expected {where(operation)} to be decodable, got: {error}") from error
    arrays = tuple(map(np.asarray, results if isinstance(results, tuple) else (results,)))
    if len(arrays) != len(operation.outputs):
        raise PackageError(f"expected {len(arrays)} outputs of {where(operation)}")
    pairs = zip(operation.outputs, arrays, strict=True)
    return {variable.name: _declared(array, variable, operation) for variable, array in pairs}


def _arguments(
    operation: Operation, codec: Codec, constant: Callable[[Argument], Constant | None]
) -> Mapping[str, Array | str | tuple[str, ...]]:
    """What each parameter is given, as it is stored."""
    given: dict[str, tuple[Argument, ...]] = {
        **{name: (value,) for name, value in operation.attributes.items() if name != "name"},
        **{name: values for name, values in operation.inputs.items() if values},
    }
    _check_names(operation, codec, given)
    arguments = {}
    for name, values in given.items():
        value = unpacked(_known(values[0], operation, constant))
        choices = codec.choices.get(name)
        if choices is not None and value not in choices:
            raise UnsupportedOpError(
                f"expected {name} of {where(operation)} to be {', '.join(map(repr, choices))}, got {value!r}"
            )
        if name not in codec.ignored:
            arguments[name] = value
    return arguments


def _check_names(operation: Operation, codec: Codec, given: Mapping[str, tuple[Argument, ...]]) -> None:
    known = codec.signature.parameters
    if unknown := sorted(given.keys() - known.keys() - codec.ignored):
        raise UnsupportedOpError(
            f"expected the parameters {sorted(known)} of {where(operation)}, got {unknown}"
        )
    missing = [name for name, one in known.items() if one.default is one.empty and name not in given]
    if missing:
        raise PackageError(f"expected parameters {missing} of {where(operation)}, got {sorted(given)}")
    several = [name for name, values in given.items() if len(values) > 1]
    if several or operation.blocks:
        raise PackageError(f"expected one value for each parameter of {where(operation)}, got others")


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
