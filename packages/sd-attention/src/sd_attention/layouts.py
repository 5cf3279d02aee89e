"""The same attention in other layouts than BC1S."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .functions import Attention


@dataclass(frozen=True, slots=True)
class _OnBSC:
    attention: Attention

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, *, dropout: float = 0.0
    ) -> Tensor:
        q, k, v = (to_bc1s(x) for x in (q, k, v))
        return from_bc1s(self.attention(q, k, v, mask, heads, dropout=dropout))


def on_bsc(attention: Attention) -> Attention:
    """The same attention for tensors in BSC.

    Shapes: q ``(B, Q, C)``; k ``(B, S, C)``; v ``(B, S, E)``; returns ``(B, Q, E)``.

    The mask keeps its layout. The result can be copied and pickled if ``attention`` can.
    """
    return _OnBSC(attention)


def to_bc1s(x: Tensor) -> Tensor:
    """From ``(B, S, C)`` to ``(B, C, 1, S)``."""
    return x.transpose(1, 2).unsqueeze(2)


def from_bc1s(x: Tensor) -> Tensor:
    """From ``(B, C, 1, S)`` to ``(B, S, C)``."""
    return x.squeeze(2).transpose(1, 2)
