"""Attention scores that are never written to memory, although the program names them.

OpenVINO's plugin for processors computes these in blocks of rows, so that their size is no measure of the
memory that they take::

    scores = matmul(query, keyᵀ)  ->  scaled, masked  ->  softmax  ->  matmul(_, value)

Seen with OpenVINO 2026.4.1 for scores of three or four dimensions of which each step is used once. Neither
another axis of the softmax, nor a transposed query, nor scores that stand on the right are fused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from sd_mil.ir.program import Argument, Operation, Reference
from sd_mil.ir.uses import constant_of, names_used, operand

#: What scales and masks, and its parameters.
_BETWEEN = {
    "add": ("x", "y"),
    "mul": ("x", "y"),
    "real_div": ("x",),
    "select": ("a", "b"),
    "sub": ("x", "y"),
}
_RANKS = (3, 4)


def fused_scores(operations: Sequence[Operation], outputs: Collection[str] = ()) -> frozenset[str]:
    """The names of such scores, at every step from the first product to the softmax.

    ``outputs`` are the values that leave the block, and so are written.
    """
    defined = {one.name: operation for operation in operations for one in operation.outputs}
    uses = Counter(name for operation in operations for name in names_used(operation))
    uses.update(outputs)
    found: set[str] = set()
    for operation in operations:
        if operation.type == "matmul" and _is_straight(operation, defined):
            found.update(_steps(operation, defined, uses))
    return frozenset(found)


def _steps(product: Operation, defined: Mapping[str, Operation], uses: Counter[str]) -> list[str]:
    """From the second product back to the first; nothing when that is not what is there."""
    name = operand(product, "x")
    softmax = defined.get(name)
    if softmax is None or softmax.type != "softmax" or uses[name] != 1 or not _is_over_last(softmax, defined):
        return []
    steps, name = [name], operand(softmax, "x")
    while (operation := defined.get(name)) is not None and uses[name] == 1:
        steps.append(name)
        if operation.type == "matmul":
            return steps if _is_straight(operation, defined, also="transpose_y") else []
        name = _scores_of(operation, defined)
    return []


def _scores_of(operation: Operation, defined: Mapping[str, Operation]) -> str:
    """Which operand of what scales or masks is as large as the result, and computed."""
    size = operation.outputs[0].type.shape
    names = [operand(operation, parameter) for parameter in _BETWEEN.get(operation.type, ())]
    whole = [one for one in names if one in defined and _is_computed(defined[one], one, size)]
    return whole[0] if len(whole) == 1 else ""


def _is_computed(operation: Operation, name: str, size: tuple[int | None, ...]) -> bool:
    declared = next(one.type.shape for one in operation.outputs if one.name == name)
    return operation.type in ("matmul", *_BETWEEN) and declared == size


def _is_straight(product: Operation, defined: Mapping[str, Operation], also: str = "") -> bool:
    """Whether neither operand is transposed first, ``also`` aside, and there are three or four dimensions."""
    flags = {"transpose_x", "transpose_y"} - {also}
    return len(product.outputs[0].type.shape) in _RANKS and not any(
        _is_other(product, flag, defined, lambda value: value in (False, 0)) for flag in flags
    )


def _is_over_last(softmax: Operation, defined: Mapping[str, Operation]) -> bool:
    last = (-1, len(softmax.outputs[0].type.shape) - 1)
    return not _is_other(softmax, "axis", defined, lambda value: value in last)


def _is_other(
    operation: Operation,
    parameter: str,
    defined: Mapping[str, Operation],
    fits: Callable[[object], bool],
) -> bool:
    """Whether the parameter is given and is not a constant that fits."""
    attribute = operation.attributes.get(parameter)
    given = operation.inputs.get(parameter, () if attribute is None else (attribute,))
    return any(not fits(_value(argument, defined)) for argument in given)


def _value(argument: Argument, defined: Mapping[str, Operation]) -> object:
    """The number that the argument is; None when it is something else."""
    if isinstance(argument, Reference):
        source = defined.get(argument.name)
        constant = None if source is None else constant_of(source)
    else:
        constant = argument
    value = None if constant is None else constant.value
    return value.item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else None
