"""A program for a newer system: the same operations, in a set that has more forms of weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from sd_mil import Operation, Program

from .errors import UnsupportedFormError
from .targets import OPSETS, target_of

#: Operations that mean something else from an iOS on, or have their parameters elsewhere.
_CHANGED: Final = {
    "crop_resize": 17,
    "constexpr_lut_to_dense": 18,
    "constexpr_sparse_to_dense": 18,
}


def with_target(program: Program, target: int) -> Program:
    """The program in the operations of the iOS ``target``, or as it is if it has newer ones already.

    Raises:
        UnsupportedFormError: an operation that the newer set has in another form.
    """
    functions = {}
    for name, function in program.functions.items():
        present = target_of(function.opset)
        if present < target:
            _check(program.operations(name), present, target)
            function = replace(function, opset=OPSETS[target][0])
        functions[name] = function
    return replace(program, functions=functions)


def specification_version(program: Program, present: int) -> int:
    """The version of the file format that the program's operations need; ``present`` if that is later."""
    needed = (OPSETS[target_of(function.opset)][1] for function in program.functions.values())
    return max(present, *needed)


def _check(operations: Iterator[Operation], present: int, target: int) -> None:
    for operation in operations:
        if present < _CHANGED.get(operation.type, 0) <= target:
            raise UnsupportedFormError(
                f"{operation.name}: expected operations that iOS{target} has as they are, got "
                f"{operation.type} of iOS{present}; convert the model for iOS{target} instead"
            )
