"""Attention as pure functions in the BC1S layout, which the Neural Engine works in.

Every function computes ``softmax(q k^T / sqrt(D) + mask) v`` for each head (arXiv:1706.03762, equation 1);
they differ only in how the work is cut into operations.

BC1S puts channels where a convolution expects them, and the sequence along the last, contiguous axis::

    q           (B, C, 1, Q)      C = N * D, head n owns channels n*D ... n*D + D - 1
    k           (B, C, 1, S)
    v           (B, E, 1, S)      E = C as a rule; any multiple of N will do
    mask        (B|1, N|1, Q|1, S) or (Q|1, S); None: all is seen. See :mod:`sd_attention.masks`
    returns     (B, E, 1, Q)

``dropout`` is the share of attention weights that are set to zero, the others growing to make up for it; it
acts whenever it is not 0, as in ``torch.nn.functional.scaled_dot_product_attention``.

A query that may see nothing at all gets zeros, and zeros as gradients, also as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .errors import AttentionShapeError

#: Queries of one chunk unless told otherwise: ``CHUNK_SIZE`` in ml-stable-diffusion's attention.py.
CHUNK_SIZE: Final = 512


class Attention(Protocol):
    """``(q, k, v, mask, heads) -> output`` in a layout that the function documents."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, *, dropout: float = 0.0
    ) -> Tensor:
        """Attend."""
        ...


def original(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, *, dropout: float = 0.0
) -> Tensor:
    """Attention over all heads at once: two batched matrix products.

    Shapes: q ``(B, C, 1, Q)``; k ``(B, C, 1, S)``; v ``(B, E, 1, S)``; returns ``(B, E, 1, Q)``.

    Raises:
        AttentionShapeError: the shapes do not fit together.

    Source: ``original`` in ml-stable-diffusion's python_coreml_stable_diffusion/attention.py.
    """
    mask = _checked(q, k, v, mask, heads)
    q, k, v = (x.reshape(x.shape[0], heads, -1, x.shape[3]) for x in (q, k, v))  # (B, N, D, Q|S)
    scores = q.transpose(2, 3) @ k * q.shape[2] ** -0.5  # (B, N, Q, S)
    weights = functional.dropout(softmax(scores, mask, 3), dropout)
    return (v @ weights.transpose(2, 3)).flatten(1, 2).unsqueeze(2)


def split_einsum(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, *, dropout: float = 0.0
) -> Tensor:
    """Attention head by head, each as two einsums that the Neural Engine runs without a copy.

    Shapes: q ``(B, C, 1, Q)``; k ``(B, C, 1, S)``; v ``(B, E, 1, S)``; returns ``(B, E, 1, Q)``.

    Raises:
        AttentionShapeError: the shapes do not fit together.

    Source: ``split_einsum`` in ml-stable-diffusion's python_coreml_stable_diffusion/attention.py;
    "Deploying Transformers on the Apple Neural Engine", principles 1 to 3.
    """
    return split_einsum_v2(q, k, v, mask, heads, chunk_size=max(1, q.shape[-1]), dropout=dropout)


def split_einsum_v2(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    heads: int,
    *,
    chunk_size: int = CHUNK_SIZE,
    dropout: float = 0.0,
) -> Tensor:
    """:func:`split_einsum` on ``chunk_size`` queries at a time, so that scores are ``(B, S, 1, chunk_size)``.

    The last chunk holds the queries that are left, however few. ``functools.partial`` fixes another chunk
    size for the rules.

    Shapes: q ``(B, C, 1, Q)``; k ``(B, C, 1, S)``; v ``(B, E, 1, S)``; returns ``(B, E, 1, Q)``.

    Raises:
        AttentionShapeError: the shapes do not fit together, or ``chunk_size`` is not positive.

    Source: ``split_einsum_v2`` in ml-stable-diffusion's python_coreml_stable_diffusion/attention.py, which
    drops what is left after whole chunks of 512, and the mask.
    """
    mask = _checked(q, k, v, mask, heads)
    if chunk_size < 1:
        raise AttentionShapeError(f"expected a positive chunk size, got {chunk_size}")
    head_outputs = []
    for n, (q_n, k_n, v_n) in enumerate(
        zip(_heads(q, heads, 1), _heads(k.transpose(1, 3), heads, 3), _heads(v, heads, 1), strict=True)
    ):
        mask_n = _mask_of_head(mask, n)
        # coremltools fails on a split into one part
        parts = torch.split(q_n, chunk_size, 3) if q.shape[3] > chunk_size else (q_n,)
        masks = (
            mask_n if len(parts) == 1 else _mask_of_queries(mask_n, i * chunk_size, part.shape[3])
            for i, part in enumerate(parts)
        )
        chunks = [
            _attend_head(part, k_n, v_n, seen, dropout) for part, seen in zip(parts, masks, strict=True)
        ]
        head_outputs.append(torch.cat(chunks, 3) if len(chunks) > 1 else chunks[0])
    return torch.cat(head_outputs, 1)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, *, dropout: float = 0.0) -> Tensor:
    """Torch's fused attention, called without a ``scale``.

    coremltools turns the call into the iOS18 operation ``scaled_dot_product_attention`` only if no scale is
    passed (apple/coremltools#2864). A model with a scale of its own multiplies the queries by it
    beforehand.

    Shapes: q ``(B, C, 1, Q)``; k ``(B, C, 1, S)``; v ``(B, E, 1, S)``; returns ``(B, E, 1, Q)``.

    Raises:
        AttentionShapeError: the shapes do not fit together.
    """
    mask = _checked(q, k, v, mask, heads)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q.dtype)
    q, k, v = (_rows(x.reshape(x.shape[0], heads, -1, x.shape[3]).transpose(2, 3)) for x in (q, k, v))
    output = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
    return output.transpose(2, 3).flatten(1, 2).unsqueeze(2)


#: The implementations by the names that converters and apps use.
IMPLEMENTATIONS: Final[Mapping[str, Attention]] = MappingProxyType(
    {"ORIGINAL": original, "SPLIT_EINSUM": split_einsum, "SPLIT_EINSUM_V2": split_einsum_v2, "SDPA": sdpa}
)


def _attend_head(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """One head: q (B, D, 1, Q), k (B, S, 1, D), v (B, E, 1, S), mask (B|1, S, 1, Q|1) to (B, E, 1, Q)."""
    scores = torch.einsum("bkhc,bchq->bkhq", k, q) * q.shape[1] ** -0.5  # (B, S, 1, Q)
    weights = functional.dropout(softmax(scores, mask, 1), dropout)
    return torch.einsum("bchk,bkhq->bchq", v, weights)


def _heads(x: Tensor, heads: int, axis: int) -> tuple[Tensor, ...]:
    """Equal parts, by ``split``: coremltools has no ``chunk``."""
    return torch.split(x, x.shape[axis] // heads, axis) if heads > 1 else (x,)


def _rows(x: Tensor) -> Tensor:
    """x (B, N, S, D) with D contiguous, without which torch takes its slow path."""
    return x if x.stride(3) == 1 else x.contiguous()


def softmax(scores: Tensor, mask: Tensor | None, axis: int) -> Tensor:
    """Softmax of masked scores; rows that may see nothing are zeros, not NaN, and have no gradient.

    Only operations that coremltools' own converter knows: not ``any``, ``isneginf``, ``|`` or ``~``.
    """
    if mask is None:
        return scores.softmax(axis)
    if mask.dtype == torch.bool:
        blind = mask.to(scores.dtype).amax(axis, keepdim=True) == 0
        hidden = torch.logical_not(torch.logical_or(mask, blind))
        scores = scores.masked_fill(hidden, -torch.inf)
    else:
        mask = mask.to(scores.dtype)
        blind = mask.amax(axis, keepdim=True) == -torch.inf
        scores = scores + mask.masked_fill(blind, 0.0)
    return scores.softmax(axis).masked_fill(blind, 0.0)


def _mask_of_head(mask: Tensor | None, head: int) -> Tensor | None:
    """The mask of one head, from (B|1, N|1, Q|1, S) to (B|1, S, 1, Q|1)."""
    if mask is None:
        return None
    one = mask[:, head : head + 1] if mask.shape[1] > 1 else mask
    return one.permute(0, 3, 1, 2)


def _mask_of_queries(mask: Tensor | None, start: int, length: int) -> Tensor | None:
    """The part of (B|1, S, 1, Q|1) that belongs to some queries."""
    return mask if mask is None or mask.shape[3] == 1 else mask.narrow(3, start, length)


def _checked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int) -> Tensor | None:
    """The mask with four axes, once everything is known to fit."""
    if any(x.ndim != 4 or x.shape[2] != 1 for x in (q, k, v)):
        raise AttentionShapeError(
            f"expected q (B, C, 1, Q), k (B, C, 1, S) and v (B, E, 1, S), {_shapes(q, k, v)}; "
            "on_bsc takes BSC"
        )
    if k.shape[3] != v.shape[3]:
        raise AttentionShapeError(f"expected k and v of one length, {_shapes(q, k, v)}")
    if q.shape[:2] != k.shape[:2] or k.shape[0] != v.shape[0]:
        raise AttentionShapeError(f"expected q with the B and C of k, and v with its B, {_shapes(q, k, v)}")
    if heads < 1 or q.shape[1] % heads or v.shape[1] % heads:
        raise AttentionShapeError(f"expected heads to divide C = {q.shape[1]}, E = {v.shape[1]}, got {heads}")
    return None if mask is None else _checked_mask(mask, (q.shape[0], heads, q.shape[3], k.shape[3]))


def _shapes(q: Tensor, k: Tensor, v: Tensor) -> str:
    return f"got q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"


def _checked_mask(mask: Tensor, full: tuple[int, int, int, int]) -> Tensor:
    """A mask may broadcast over batch, heads and queries, never over keys."""
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise AttentionShapeError(
            f"expected a boolean mask (True: may be seen) or one to add to the scores, got {mask.dtype}"
        )
    whole = mask[None, None] if mask.ndim == 2 else mask
    fits = whole.ndim == 4 and whole.shape[3] == full[3]
    if not fits or any(size not in (1, most) for size, most in zip(whole.shape, full, strict=True)):
        raise AttentionShapeError(
            f"expected a mask (B|1, N|1, Q|1, S) or (Q|1, S) for (B, N, Q, S) = {full}, "
            f"got {list(mask.shape)}; see sd_attention.masks"
        )
    return whole
