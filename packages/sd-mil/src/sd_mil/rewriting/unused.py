"""Operations that nothing needs."""

from __future__ import annotations

from dataclasses import replace

from sd_mil.ir.program import Operation, Program, Reference


def drop_unused(program: Program) -> Program:
    """Leave out operations whose outputs neither another operation nor the function's result uses.

    Given::   a = relu(x); b = exp(x); -> (a)
    Result::  a = relu(x); -> (a)
    """
    body = program.main.body
    needed = set(body.outputs)
    kept: list[Operation] = []
    for operation in reversed(body.operations):
        if any(output.name in needed for output in operation.outputs):
            kept.append(operation)
            needed.update(_read_by(operation))
    main = replace(program.main, body=replace(body, operations=tuple(reversed(kept))))
    return replace(program, functions={**program.functions, program.default_function: main})


def _read_by(operation: Operation) -> set[str]:
    arguments = (argument for group in operation.inputs.values() for argument in group)
    return {argument.name for argument in arguments if isinstance(argument, Reference)}
