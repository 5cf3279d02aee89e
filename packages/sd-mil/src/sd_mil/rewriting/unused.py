"""Operations that nothing needs."""

from __future__ import annotations

from sd_mil.ir.program import Program
from sd_mil.ir.uses import live_operations, with_operations
from sd_mil.rewriting.passes import rewrites
from sd_mil.rewriting.properties import IN_ORDER, LIVE


@rewrites(requires=(IN_ORDER,), ensures=(IN_ORDER, LIVE))
def drop_unused(program: Program) -> Program:
    """Leave out operations whose outputs nothing uses; what writes a state stays.

    Given::   a = relu(x); b = exp(x); -> (a)
    Result::  a = relu(x); -> (a)
    """
    return with_operations(program, live_operations(program.main.body))
