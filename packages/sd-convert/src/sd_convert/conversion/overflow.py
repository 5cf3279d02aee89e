"""How large a network's numbers become: its program is run, by sd-mil's reference engine.

Not by torch, so that a program that was kept is checked without it. What is looked at is what the program
computes, operation by operation: scores of attention count as they are computed, and squares on the way to a
variance, which engines do not round, do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sd_mil import Program
from sd_mil.ir import references

#: Words in front of a path that belong to the module around the network: ``unet``, ``text_encoder``.
_WRAPPER: Final = 2
_OF_VARIANCE: Final = ("reduce_mean", "add", "sqrt")


@dataclass(frozen=True, slots=True)
class Extreme:
    """The largest magnitude of all values, and the path of the module that made it."""

    magnitude: float
    path: str


def largest_activation(
    program: Program, inputs: Iterable[Mapping[str, npt.NDArray[np.generic]]], modules: Collection[str]
) -> Extreme:
    """Run a program in float32 on each of ``inputs`` and watch every value that an operation returns.

    NaN counts as infinite. ``modules``: paths of the network's modules, for which operations are named.
    """
    from sd_mil.engines import Reference

    magnitude, place = 0.0, ""
    inside = _inside_normalisation(program)

    def look(event: Any) -> None:
        nonlocal magnitude, place
        if event.operation.type == "const" or event.operation.name in inside:
            return
        for value in event.results:
            found = _magnitude(value)
            if found > magnitude:
                magnitude, place = found, event.operation.name

    compiled = Reference().compile(program)
    for arrays in inputs:
        with np.errstate(all="ignore"):  # what overflows is what is looked for
            compiled.run(arrays, observe=look)
    return Extreme(magnitude, _module_of(place, modules))


def _inside_normalisation(program: Program) -> frozenset[str]:
    """Names of the operations between a square and the division by the deviation that it leads to."""
    values: set[str] = set()
    names: set[str] = set()
    for operation in program.operations():
        follows = operation.type in _OF_VARIANCE and not values.isdisjoint(references(operation))
        if operation.type == "square" or follows:
            values |= {variable.name for variable in operation.outputs}
            names.add(operation.name)
    return frozenset(names)


def _magnitude(value: Any) -> float:
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not value.size:
        return 0.0
    found = max(-float(value.min()), float(value.max()))
    return math.inf if math.isnan(found) else found


def _module_of(operation: str, modules: Collection[str]) -> str:
    """The innermost module whose path an operation's name begins with, as the lowering writes paths."""
    named = {re.sub(r"\W", "_", path, flags=re.ASCII): path for path in modules}
    words = operation.split("_")
    for start in range(_WRAPPER + 1):
        for end in range(len(words), start, -1):
            if (path := named.get("_".join(words[start:end]))) is not None:
                return path
    return ""
