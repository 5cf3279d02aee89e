"""Normalisations that were taken apart, put together again."""

from __future__ import annotations

import numpy as np

from sd_mil.ir.program import Argument, Constant, Operation, Program, Reference, TensorType
from sd_mil.ir.uses import with_operations
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import CASTS_UNREAD, IN_ORDER
from sd_mil.rewriting.views import Definitions


@rewrites(requires=(IN_ORDER, CASTS_UNREAD), ensures=(IN_ORDER, CASTS_UNREAD))
def standardise(program: Program) -> Program:
    """Write group and layer normalisations as one operation each, which runs in two passes over the data.

    Given, in the middle of a group normalisation over [batch, groups, channels, height, width]::

        centred  = sub(x, reduce_mean(x, axes=[2, 3, 4], keep_dims=True))
        variance = reduce_mean(square(centred), axes=[2, 3, 4], keep_dims=True)
        y        = real_div(centred, sqrt(add(variance, epsilon)))

    Result::

        y = layer_norm(x, axes=[2, 3, 4], epsilon=epsilon)

    Also where the square is ``mul(centred, centred)``, and the last line ``mul(centred, rsqrt(...))``.
    """
    definitions = Definitions.of(program.main.body)
    return with_operations(
        program,
        (_standardised(operation, definitions) or operation for operation in program.main.body.operations),
    )


def _standardised(operation: Operation, definitions: Definitions) -> Operation | None:
    """The normalisation whose result ``operation`` computes."""
    found = _centred_and_deviation(operation, definitions)
    if found is None:
        return None
    centred, variance, epsilon = found
    difference = definitions.producer(centred, "sub")
    spread = definitions.producer(variance, "reduce_mean")
    if (
        difference is None
        or spread is None
        or not _is_square(definitions.operand(spread, "x"), centred, definitions)
    ):
        return None
    source = definitions.operand(difference, "x")
    mean = definitions.producer(definitions.operand(difference, "y"), "reduce_mean")
    if mean is None or not source or definitions.operand(mean, "x") != source:
        return None
    axes = _kept_axes(mean, definitions)
    if axes is None or axes != _kept_axes(spread, definitions):
        return None
    inputs: dict[str, tuple[Argument, ...]] = {
        "x": (Reference(source),),
        "axes": (Constant(TensorType("int32", (len(axes),)), np.array(axes, np.int32)),),
        "epsilon": (Constant(TensorType("fp32", ()), np.array(epsilon, np.float32)),),
    }
    return Operation("layer_norm", operation.name, inputs, operation.outputs)


def _centred_and_deviation(operation: Operation, definitions: Definitions) -> tuple[str, str, float] | None:
    """What ``operation`` divides by √(variance + ε): the value, the variance and ε."""
    if operation.type == "real_div":
        root = definitions.producer(definitions.operand(operation, "y"), "sqrt")
        return None if root is None else _with_epsilon(definitions.operand(operation, "x"), root, definitions)
    if operation.type == "mul":
        for value, factor in (("x", "y"), ("y", "x")):
            root = definitions.producer(definitions.operand(operation, factor), "rsqrt")
            if root is not None:
                return _with_epsilon(definitions.operand(operation, value), root, definitions)
    return None


def _with_epsilon(centred: str, root: Operation, definitions: Definitions) -> tuple[str, str, float] | None:
    """``rsqrt`` adds an epsilon of its own, 1e-12 if none is given."""
    own = 0.0
    if root.type == "rsqrt":
        given = definitions.constant(root, "epsilon")
        own = 1e-12 if given is None else _number(given)
    if own < 0:
        return None
    variance = definitions.operand(root, "x")
    shifted = definitions.producer(variance, "add")
    if shifted is None:
        return (centred, variance, own) if own > 0 else None
    for constant, value in (("y", "x"), ("x", "y")):
        epsilon = _number(definitions.constant(shifted, constant))
        if epsilon >= 0 and (name := definitions.operand(shifted, value)):
            return centred, name, own + epsilon
    return None


def _number(value: object) -> float:
    """One number; negative, which no epsilon is, for anything else."""
    return float(value.item()) if isinstance(value, np.ndarray | np.generic) and value.size == 1 else -1.0


def _is_square(name: str, centred: str, definitions: Definitions) -> bool:
    square = definitions.producer(name, "square")
    if square is not None:
        return definitions.operand(square, "x") == centred
    product = definitions.producer(name, "mul")
    return product is not None and {definitions.operand(product, one) for one in ("x", "y")} == {centred}


def _kept_axes(mean: Operation, definitions: Definitions) -> list[int] | None:
    """The axes of a mean that keeps its dimensions, from the front; None of any other."""
    axes = definitions.ints(mean, "axes")
    rank = len(definitions.shapes.get(definitions.operand(mean, "x"), ()))
    if not axes or not rank or definitions.ints(mean, "keep_dims") != [1]:
        return None
    return sorted(axis % rank for axis in axes)
