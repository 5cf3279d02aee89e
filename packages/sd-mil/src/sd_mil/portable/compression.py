"""Compressed weights (``constexpr_*``), decoded while a program is translated.

The reference engine's decoders do it. OpenVINO has no lookup-table weights: it would fold them to fp32.
"""

from __future__ import annotations

import numpy as np

from sd_mil import reference
from sd_mil.errors import PackageError
from sd_mil.portable.scope import Scope
from sd_mil.program import Argument, Block, Constant, Function, Operation, Program, TensorType, Variable
from sd_mil.reference.ops import OPS


def is_compressed(op_type: str) -> bool:
    """Whether an operation of this type decodes weights, in a way that is known."""
    return op_type.startswith("constexpr_") and op_type in OPS


def decompress(operation: Operation, scope: Scope) -> dict[str, Constant]:
    """What ``operation`` decodes to, by output name; in fp16 where that loses nothing.

    Raises:
        PackageError: an argument is not a constant, or the arguments do not fit each other.
    """
    inputs = {name: _constants(arguments, operation, scope) for name, arguments in operation.inputs.items()}
    alone = Operation(
        operation.type, operation.name, inputs, operation.outputs, attributes=operation.attributes
    )
    body = Block((), (alone,), tuple(output.name for output in operation.outputs))
    decoder = reference.compile_program(Program({"main": Function("main", "", body)}))
    decoded = decoder.run({})
    return {output.name: _narrowed(decoded[output.name], output) for output in operation.outputs}


def _constants(arguments: tuple[Argument, ...], operation: Operation, scope: Scope) -> tuple[Argument, ...]:
    known = tuple(constant for constant in map(scope.constant, arguments) if constant is not None)
    if len(known) != len(arguments):
        raise PackageError(
            f"expected constants only, got a computed argument of {operation.type} {operation.name!r}"
        )
    return known


def _narrowed(values: np.ndarray, output: Variable) -> Constant:
    """``values`` with the dtype declared for ``output``, or wider when that would change them."""
    if output.type.dtype == "fp16":
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.array_equal(halves, values):
            return Constant(TensorType("fp32", output.type.shape), values)
        values = halves
    return Constant(output.type, values)
