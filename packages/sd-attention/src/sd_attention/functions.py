"""Attention as pure functions in the BC1S layout, which the Neural Engine works in.

Both functions compute ``softmax(q k^T / sqrt(D) + mask) v`` for each head (arXiv:1706.03762, equation 1);
they differ only in how the work is cut into operations.

BC1S puts channels where a convolution expects them, and the sequence along the last, contiguous axis::

    q           (B, C, 1, Q)      C = N * D, head n owns channels n*D ... n*D + D - 1
    k, v        (B, C, 1, S)
    mask        (B|1, N|1, Q|1, S), boolean (True: may be seen) or added to the scores; None: all is seen

A query that may see nothing at all gets zeros, as in ``torch.nn.functional.scaled_dot_product_attention``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import torch
from torch import Tensor

from .errors import AttentionShapeError

#: ``(q, k, v, mask, heads) -> (B, C, 1, Q)``
Attention: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None, int], Tensor]


def original(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """Attention over all heads at once: two batched matrix products.

    Shapes: q ``(B, C, 1, Q)``; k, v ``(B, C, 1, S)``; mask ``(B|1, N|1, Q|1, S)``; returns ``(B, C, 1, Q)``.

    Raises:
        AttentionShapeError: the shapes do not fit together.

    Source: ``original`` in ml-stable-diffusion's python_coreml_stable_diffusion/attention.py.
    """
    _check(q, k, v, mask, heads)
    q, k, v = (x.reshape(x.shape[0], heads, -1, x.shape[3]) for x in (q, k, v))  # (B, N, D, Q|S)
    scores = q.transpose(2, 3) @ k * q.shape[2] ** -0.5  # (B, N, Q, S)
    weights = _softmax(_masked(scores, mask), 3)
    return (v @ weights.transpose(2, 3)).flatten(1, 2).unsqueeze(2)


def split_einsum(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """Attention head by head, each as two einsums that the Neural Engine runs without a copy.

    Shapes: q ``(B, C, 1, Q)``; k, v ``(B, C, 1, S)``; mask ``(B|1, N|1, Q|1, S)``; returns ``(B, C, 1, Q)``.

    Raises:
        AttentionShapeError: the shapes do not fit together.

    Source: ``split_einsum`` in ml-stable-diffusion's python_coreml_stable_diffusion/attention.py;
    "Deploying Transformers on the Apple Neural Engine", principles 1 to 3.
    """
    _check(q, k, v, mask, heads)
    scale = (q.shape[1] // heads) ** -0.5
    head_outputs = []
    for n, (q_n, k_n, v_n) in enumerate(
        zip(q.chunk(heads, 1), k.transpose(1, 3).chunk(heads, 3), v.chunk(heads, 1), strict=True)
    ):
        scores = torch.einsum("bkhc,bchq->bkhq", k_n, q_n) * scale  # (B, S, 1, Q)
        weights = _softmax(_masked(scores, _head_mask(mask, n)), 1)
        head_outputs.append(torch.einsum("bchk,bkhq->bchq", v_n, weights))  # (B, D, 1, Q)
    return torch.cat(head_outputs, 1)


#: The implementations by the names that converters and apps use.
IMPLEMENTATIONS: Final[Mapping[str, Attention]] = MappingProxyType(
    {"ORIGINAL": original, "SPLIT_EINSUM": split_einsum}
)


def on_bsc(attention: Attention) -> Attention:
    """The same attention for tensors in BSC: q ``(B, Q, C)``; k, v ``(B, S, C)``; returns ``(B, Q, C)``.

    The mask keeps its layout.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int) -> Tensor:
        q, k, v = (x.transpose(1, 2).unsqueeze(2) for x in (q, k, v))
        return attention(q, k, v, mask, heads).squeeze(2).transpose(1, 2)

    return attend


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -torch.inf)
    return scores + mask


def _softmax(scores: Tensor, axis: int) -> Tensor:
    """Softmax that gives zeros, not NaN, where every score is minus infinity."""
    blind = scores.isneginf().all(axis, keepdim=True)
    return scores.softmax(axis).masked_fill(blind, 0.0)


def _head_mask(mask: Tensor | None, head: int) -> Tensor | None:
    """The mask of one head, from (B|1, N|1, Q|1, S) to (B|1, S, 1, Q|1)."""
    if mask is None:
        return None
    one = mask[:, head : head + 1] if mask.shape[1] > 1 else mask
    return one.permute(0, 3, 1, 2)


def _check(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int) -> None:
    if q.ndim != 4 or k.ndim != 4 or q.shape[2] != 1 or k.shape[2] != 1:
        raise AttentionShapeError(
            f"expected q (B, C, 1, Q) and k (B, C, 1, S), got q {list(q.shape)} and k {list(k.shape)}"
        )
    if k.shape != v.shape or q.shape[:2] != k.shape[:2]:
        raise AttentionShapeError(
            f"expected k and v of one shape and q with their B and C, "
            f"got q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        )
    if heads < 1 or q.shape[1] % heads:
        raise AttentionShapeError(f"expected heads to divide C = {q.shape[1]}, got {heads}")
    if mask is not None:
        _check_mask(mask, (q.shape[0], heads, q.shape[3], k.shape[3]))


def _check_mask(mask: Tensor, full: tuple[int, int, int, int]) -> None:
    """A mask may broadcast over batch, heads and queries, never over keys."""
    fits = mask.ndim == 4 and mask.shape[3] == full[3]
    if not fits or any(size not in (1, whole) for size, whole in zip(mask.shape, full, strict=True)):
        raise AttentionShapeError(
            f"expected a mask (B|1, N|1, Q|1, S) for (B, N, Q, S) = {full}, got {list(mask.shape)}"
        )
