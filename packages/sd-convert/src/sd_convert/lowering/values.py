"""What an ATen value is while a graph is lowered.

A value is one of: a :class:`Tensor` of the program, a :class:`Weight` that stays in its file, a
``torch.Tensor`` on the CPU (a constant that was folded), or a Python number, list or None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sd_convert.lowering.computed import Expression

from .views import View


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A variable of the program under construction, and how ATen sees what it stores."""

    var: Any
    """coremltools' ``Var``"""
    view: View

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that ATen sees."""
        return self.view.shape

    @property
    def is_bc1s(self) -> bool:
        """Whether ATen sees (B, S, C) where the variable holds B, C and then S, as a BCHW image does."""
        return (
            len(self.view.dims) == 3
            and len(self.var.shape) == 4
            and self.view.is_stored_as((0, 2, 1))
            and not self.view.is_stored_as((0, 1, 2))
        )


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of the checkpoint, by its state-dict name, or what is computed from it and others.

    ``shape`` is that of the result; ``expression`` is None for the tensor itself.
    """

    name: str
    shape: tuple[int, ...]
    expression: Expression | None = None

    @property
    def value(self) -> Expression:
        """What it is, as an expression of tensors."""
        return self.name if self.expression is None else self.expression


def stored(var: Any) -> Tensor:
    """A variable that ATen sees as it is."""
    return Tensor(var, View.of(var.shape))


def from_bc1s(var: Any) -> Tensor:
    """A (B, C, 1, S) variable that ATen sees as (B, S, C)."""
    batch, channels, _, length = var.shape
    return Tensor(var, View.of((batch, channels, length)).permute((0, 2, 1)))
