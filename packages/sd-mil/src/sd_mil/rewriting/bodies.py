"""The body of a program, replaced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sd_mil.ir.program import Operation, Program


def with_operations(program: Program, operations: Iterable[Operation]) -> Program:
    """``program`` with other operations in its default function."""
    body = replace(program.main.body, operations=tuple(operations))
    main = replace(program.main, body=body)
    return replace(program, functions={**program.functions, program.default_function: main})
