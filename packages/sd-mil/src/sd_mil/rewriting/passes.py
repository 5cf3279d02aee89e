"""A pass, what it asks of a program, and what it promises of the one that it gives.

As in onnx's ``ir-py`` (``passes/_pass_infra.py``): a pass that only works on some programs says on which,
so that the order of passes can be checked instead of remembered. Running a pass checks nothing, because
checks of a program of 20,000 operations take longer than most passes; tests use :meth:`Pass.checked`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Generic, ParamSpec

from sd_mil.ir.program import Program
from sd_mil.ir.uses import output_types

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Property:
    """Something that is true of a program or not, as a sentence, and how to find out."""

    claim: str
    holds: Callable[[Program], bool]

    def __str__(self) -> str:
        """The sentence."""
        return self.claim


class PassError(AssertionError):
    """A pass was given a program that it is not for, or did not do what it promises: its author's fault."""


@dataclass(frozen=True, slots=True)
class Pass(Generic[P]):
    """A rewrite ``Program -> Program``; inputs and outputs keep their names, order and shapes.

    ``requires`` is what has to hold before for the result to mean the same and for ``ensures`` to come true.
    """

    function: Callable[Concatenate[Program, P], Program]
    requires: tuple[Property, ...] = ()
    ensures: tuple[Property, ...] = ()

    @property
    def name(self) -> str:
        """The function's."""
        return self.function.__name__

    def __call__(self, program: Program, *args: P.args, **kwargs: P.kwargs) -> Program:
        """The program rewritten."""
        return self.function(program, *args, **kwargs)

    def checked(self, program: Program, *args: P.args, **kwargs: P.kwargs) -> Program:
        """The program rewritten, held to what the pass says.

        Raises:
            PassError: something that the pass requires or ensures does not hold, or an input or output is
                another than before.
        """
        self._hold("requires", self.requires, program)
        rewritten = self(program, *args, **kwargs)
        self._hold("ensures", self.ensures, rewritten)
        before, after = _signature(program), _signature(rewritten)
        if before != after:
            raise PassError(f"{self.name} keeps inputs and outputs: expected {before}, got {after}")
        return rewritten

    def _hold(self, verb: str, properties: tuple[Property, ...], program: Program) -> None:
        for one in properties:
            if not one.holds(program):
                raise PassError(f"{self.name} {verb} that {one}, which it does not")


def rewrites(
    *, requires: tuple[Property, ...] = (), ensures: tuple[Property, ...] = ()
) -> Callable[[Callable[Concatenate[Program, P], Program]], Pass[P]]:
    """Make a pass of a function."""

    def made(function: Callable[Concatenate[Program, P], Program]) -> Pass[P]:
        return Pass(function, requires, ensures)

    return made


def _signature(program: Program) -> tuple[object, ...]:
    """Dtypes aside: between floats they are the engine's."""
    shapes = {name: kind.shape for name, kind in output_types(program).items()}
    return program.main.inputs, tuple((name, shapes[name]) for name in program.main.outputs)
