"""Masks: which key each query may see.

Every function of this package takes a mask in one form, ``(B|1, N|1, Q|1, S)`` (or ``(Q|1, S)``, the same
for all batches and heads): boolean, True where a key may be seen, or of a floating type and added to the
scores. The functions here bring the other customs to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import AttentionShapeError


def causal_mask(queries: int, keys: int, *, device: torch.device | str | None = None) -> Tensor:
    """Query i sees keys 0 ... i, as with torch's ``is_causal=True``; boolean ``(1, 1, Q, S)``."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril()[None, None]


def key_padding_mask(visible: Tensor) -> Tensor:
    """``visible`` ``(B, S)``, True or 1 where a token is not padding; boolean ``(B, 1, 1, S)``.

    This is the ``attention_mask`` of tokenizers. ``torch.nn.MultiheadAttention`` means the opposite: pass
    ``~mask``.

    Raises:
        AttentionShapeError: ``visible`` does not have two axes.
    """
    if visible.ndim != 2:
        raise AttentionShapeError(f"expected a padding mask (B, S), got {list(visible.shape)}")
    return visible.bool()[:, None, None, :]


def combine_masks(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The mask under which a key is seen if both let it be seen; additive parts add up.

    Two boolean masks stay boolean; otherwise the result is additive.
    """
    if first is None or second is None:
        return second if first is None else first
    if first.dtype == second.dtype == torch.bool:
        return torch.logical_and(first, second)
    dtype = second.dtype if first.dtype == torch.bool else first.dtype
    return additive_mask(first, dtype) + additive_mask(second, dtype)


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers to add to the scores: 0 where a key may be seen, minus infinity elsewhere."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
        torch.logical_not(mask), -torch.inf
    )
