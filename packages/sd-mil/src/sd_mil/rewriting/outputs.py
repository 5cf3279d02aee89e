"""Values of a program as its outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sd_mil.ir.program import Program


def returning(program: Program, names: Iterable[str]) -> Program:
    """``program`` with a default function that returns the values ``names``, of those at the top of it.

    Given::   a = silu(x); b = conv(a, w); -> (b)
    Result::  a = silu(x); b = conv(a, w); -> (a)

    Nothing is left out, and what an engine fuses over such a value it fuses no longer.
    """
    main = program.main
    function = replace(main, body=replace(main.body, outputs=tuple(names)))
    return replace(program, functions={**program.functions, program.default_function: function})
