"""A weight whose every element is the nearest entry of a small table, and which still learns.

Forward, an element is the entry of its table that it is nearest to. Backward, the gradient goes to that entry
exactly (an entry gets the sum over the elements that use it), and to the element as if nothing had been
rounded (the straight-through estimator of Bengio et al., arXiv:1308.3432), so that elements move, and change
their entry when they cross the middle between two.

Differentiable k-means (DKM, arXiv:2108.12659) learns both too, but keeps a soft assignment of every element
to every entry for each of its iterations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: Sweeps of Lloyd's algorithm for the first table; training moves the entries anyway.
_SWEEPS = 300


class LearnedTables(nn.Module):
    """A torch parametrization: ``2**nbits`` values for each of ``groups`` equal parts of the first axis.

    Shapes:
        ``tables`` [groups, 2**nbits]; ``forward`` takes and returns a weight [groups * n, ...].
    """

    def __init__(self, weight: Tensor, nbits: int, groups: int = 1) -> None:
        """Start from the tables that fit ``weight`` best."""
        super().__init__()
        self.tables = nn.Parameter(_fit(weight.detach().reshape(groups, -1), 2**nbits))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in values of the tables; differentiable in both."""
        tables = self.tables
        rounded: Tensor = _Lookup.apply(weight.reshape(len(tables), -1), tables)  # type: ignore[no-untyped-call]
        return rounded.reshape(weight.shape)

    @torch.no_grad()
    def round_to_half(self) -> None:
        """Round the tables to fp16, in which Core ML stores them."""
        self.tables.copy_(self.tables.half())


class _Lookup(torch.autograd.Function):
    """Rows of elements [groups, N] to the nearest entries of their tables [groups, entries]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, tables: Tensor) -> Tensor:
        ordered, order = tables.sort(dim=1)
        places = _nearest(rows, ordered)
        ctx.save_for_backward(places, order)
        return ordered.gather(1, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        places, order = ctx.saved_tensors
        sums = torch.zeros(order.shape, dtype=gradient.dtype, device=gradient.device)
        sums.scatter_add_(1, places, gradient)
        return gradient, torch.zeros_like(sums).scatter_(1, order, sums)


def _nearest(rows: Tensor, ordered: Tensor) -> Tensor:
    """The place of the nearest entry of ascending tables [groups, entries], for each element."""
    middles = (ordered[:, 1:] + ordered[:, :-1]) / 2
    return torch.searchsorted(middles.contiguous(), rows.contiguous())


@torch.no_grad()
def _fit(rows: Tensor, entries: int) -> Tensor:
    """Tables [groups, entries] by Lloyd's algorithm from the quantiles of each row.

    Of ascending rows an entry has one span, whose sum is a difference of cumulative ones.
    """
    ascending = rows.double().sort(dim=1).values
    sums = nn.functional.pad(ascending.cumsum(dim=1), (1, 0))
    shares = (torch.arange(entries, device=rows.device) + 0.5) / entries
    tables = ascending[:, (shares * rows.shape[1]).long()]
    for _ in range(_SWEEPS):
        bounds = torch.searchsorted(ascending, (tables[:, 1:] + tables[:, :-1]) / 2)
        bounds = nn.functional.pad(bounds, (1, 0))
        bounds = nn.functional.pad(bounds, (0, 1), value=rows.shape[1])
        counts = bounds.diff(dim=1)
        means = sums.gather(1, bounds).diff(dim=1) / counts.clamp(min=1)
        tables = torch.where(counts > 0, means, tables)
    return tables.to(rows.dtype)
