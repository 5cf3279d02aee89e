"""Control flow: operations whose nested blocks run once, several times, or not at all."""

from __future__ import annotations

import itertools

from sd_mil.engines.reference.registry import Array, BlockFunction, form
from sd_mil.engines.reference.values import Value
from sd_mil.ir.limits import check_iterations


@form("cond", blocks=2)
def cond(blocks: tuple[BlockFunction, ...], pred: Array) -> tuple[Value, ...]:
    """The first block where the predicate holds, else the second."""
    taken, otherwise = blocks
    return taken() if pred.item() else otherwise()


@form("while_loop", blocks=2, variadic="loop_vars")
def while_loop(blocks: tuple[BlockFunction, ...], loop_vars: tuple[Value, ...]) -> tuple[Value, ...]:
    """The second block, from loop variables to loop variables, as long as the first one says so."""
    condition, body = blocks
    for count in itertools.count(1):
        if not condition(*loop_vars)[0].item():
            break
        check_iterations(count)
        loop_vars = body(*loop_vars)
    return loop_vars
