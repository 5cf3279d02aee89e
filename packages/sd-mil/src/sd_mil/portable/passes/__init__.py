"""Rewrites of a program that change its speed and nothing else, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from sd_mil.program import Program

#: In order.
PASSES: tuple[Callable[[Program], Program], ...] = ()


def rewrite(program: Program) -> Program:
    """``program`` after every pass."""
    for rewrite_once in PASSES:
        program = rewrite_once(program)
    return program
