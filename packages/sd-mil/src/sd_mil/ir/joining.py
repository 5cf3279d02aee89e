"""Several programs as the functions of one, with equal weights once; and one of them alone again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from sd_mil.ir.program import Constant, Function, Program
from sd_mil.ir.tensors import Tensor, pieces
from sd_mil.ir.uses import with_constants

#: Equal for constants that are equal.
Key: TypeAlias = Callable[[Constant], Hashable]

#: What a program of one function calls it.
MAIN = "main"


def content_key(constant: Constant) -> Hashable:
    """Type, and the sha256 of the elements, which are read for it."""
    sha, value = hashlib.sha256(), constant.content
    if isinstance(value, np.ndarray | np.generic | Tensor):
        for piece in pieces(value):
            sha.update(piece.view(np.uint8).data)
    return constant.type, constant.stored, sha.digest()


def joined(programs: Mapping[str, Program], *, key: Key = content_key) -> Program:
    """One program of the default functions of ``programs``, under these names; the first is its default.

    Constants of a weight file that are equal by ``key`` become one constant, so that a file of all has them
    once, in the order of the first program. What the functions differ in stays each one's own.

    Raises:
        ValueError: no program.
    """
    if not programs:
        raise ValueError("expected at least one program, got none")
    known: dict[Hashable, Constant] = {}

    def shared(constant: Constant) -> Constant:
        if not constant.stored:
            return constant
        first = known.setdefault(key(constant), constant)
        return constant if first is constant else replace(first, type=constant.type)

    def function(name: str, one: Function) -> Function:
        others = {opset: with_constants(block, shared) for opset, block in one.specializations.items()}
        return replace(one, name=name, body=with_constants(one.body, shared), specializations=others)

    first, *_ = programs.values()
    functions = {name: function(name, program.main) for name, program in programs.items()}
    return replace(first, functions=functions, default_function=next(iter(programs)))


def alone(program: Program, function: str) -> Program:
    """The program of one of its functions, called ``main`` as in packages that have one."""
    only = replace(program.functions[function], name=MAIN)
    return replace(program, functions={MAIN: only}, default_function=MAIN)
