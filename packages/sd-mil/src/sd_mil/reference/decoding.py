"""A compressed constant on its own: what an engine that does not interpret needs of the decoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sd_mil.dtypes import SUB_BYTE_BITS, stored_dtype
from sd_mil.errors import PackageError
from sd_mil.program import Argument, Constant, Operation, Variable
from sd_mil.reference.packing import pack
from sd_mil.reference.payload import unpacked
from sd_mil.reference.plan import arguments_of, where
from sd_mil.reference.registry import OPS, Array

#: What wrong sizes make numpy raise.
_FAILURES = (ArithmeticError, LookupError, MemoryError, TypeError, ValueError)


def decode(operation: Operation, constant: Callable[[Argument], Constant | None]) -> dict[str, Constant]:
    """What a ``constexpr_*`` operation stands for, by output name: constants of the declared types.

    ``constant`` finds the constant that an argument is or refers to. The bits are those of coremltools.

    Raises:
        UnsupportedOpError: a parameter or choice that is not known.
        PackageError: an argument is not a constant, or the arguments do not fit each other.
    """
    known = {name: _known(given, operation, constant) for name, given in _arguments(operation).items()}
    named = {name: one for name, one in known.items() if one is not None}
    op = OPS[operation.type]
    checked = arguments_of(operation, op, named)
    try:
        results = op.function(**{name: unpacked(known[name]) for name in checked})
    except _FAILURES as error:
        raise PackageError(f"expected {where(operation)} to be decodable, got: {error}") from error
    arrays = results if isinstance(results, tuple) else (results,)
    if len(arrays) != len(operation.outputs):
        raise PackageError(f"expected {len(arrays)} outputs of {where(operation)}")
    pairs = zip(operation.outputs, arrays, strict=True)
    return {variable.name: _declared(array, variable, operation) for variable, array in pairs}
