"""Attention: the opaque operator in the chosen implementation, and torch's own, which stays in one piece.

The expressions are those of :mod:`sd_attention`, operation by operation as Apple's converter emits them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from sd_convert.errors import LoweringError
from sd_convert.lowering.builder import MASKED, Builder
from sd_convert.lowering.registry import lowers
from sd_convert.lowering.values import Tensor, from_bc1s, stored

#: q, k, v as (B, C, 1, S); an additive mask (B|1, N|1, Q|1, S) or None; heads.
_Expansion: TypeAlias = Callable[[Builder, Any, Any, Any, Any, int], Any]


@lowers("sd_attention.attention.default")
def attention(
    b: Builder, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | torch.Tensor | None, heads: int
) -> Tensor:
    """Attention in the implementation that was asked for."""
    batch, tokens, channels = q.shape
    choice = b.attention(batch, tokens, k.shape[1], heads, channels // heads)
    additive = _additive(b, mask)
    inputs = (b, b.bc1s(q), b.bc1s(k), b.bc1s(v), additive, heads)
    if choice.chunk_size is not None and choice.chunk_size < tokens:
        return from_bc1s(split_einsum_v2(*inputs, chunk_size=choice.chunk_size))
    return from_bc1s(EXPANSIONS[choice.implementation](*inputs))


def _additive(b: Builder, mask: Tensor | torch.Tensor | None) -> Any:
    """A mask (B|1, N|1, Q|1, S) to be added to scores: an array if it is known, else a variable, or None."""
    if mask is None:
        return None
    if isinstance(mask, torch.Tensor):
        known = b.additive_mask(mask)
        return known.reshape((1,) * (4 - known.ndim) + known.shape)
    mask = b.reshaped(mask, (1,) * (4 - len(mask.shape)) + mask.shape)
    if b.is_float(mask):
        return b.emit("maximum", x=b.plain(mask), y=b.number(MASKED))
    unseen = b.emit("sub", x=b.number(1), y=b.plain(b.converted(mask, b.dtype.name)))
    return b.emit("mul", x=unseen, y=b.number(MASKED))


def original(b: Builder, q: Any, k: Any, v: Any, mask: Any, heads: int) -> Any:
    """:func:`sd_attention.original`: all heads at once, two matrix products."""
    batch, channels, _, length = q.shape
    width = channels // heads
    q, k, v = (b.emit("reshape", x=x, shape=(batch, heads, width, x.shape[3])) for x in (q, k, v))
    scores = b.emit("matmul", x=q, y=k, transpose_x=True, transpose_y=False)
    scores = b.emit("mul", x=scores, y=b.number(width**-0.5))
    if mask is not None:
        scores = b.emit("add", x=scores, y=mask)
    weights = b.emit("softmax", x=scores, axis=3)
    output = b.emit("matmul", x=v, y=weights, transpose_x=False, transpose_y=True)
    return b.emit("reshape", x=output, shape=(batch, channels, 1, length))


def split_einsum(b: Builder, q: Any, k: Any, v: Any, mask: Any, heads: int) -> Any:
    """:func:`sd_attention.split_einsum`: head by head, each as two einsums."""
    width = q.shape[1] // heads
    keys = b.emit("transpose", x=k, perm=(0, 3, 2, 1))
    queries_of, values_of = ([_head(b, x, 1, n, width) for n in range(heads)] for x in (q, v))
    keys_of = [_head(b, keys, 3, n, width) for n in range(heads)]
    scores_of = [
        _masked(b, _scaled(b, b.emit("einsum", values=pair, equation="bkhc,bchq->bkhq"), width), mask, n)
        for n, pair in enumerate(zip(keys_of, queries_of, strict=True))
    ]
    weights_of = [b.emit("softmax", x=scores, axis=1) for scores in scores_of]
    outputs = [
        b.emit("einsum", values=pair, equation="bchk,bkhq->bchq")
        for pair in zip(values_of, weights_of, strict=True)
    ]
    return b.emit("concat", values=outputs, axis=1)


def split_einsum_v2(b: Builder, q: Any, k: Any, v: Any, mask: Any, heads: int, *, chunk_size: int) -> Any:
    """:func:`sd_attention.split_einsum_v2`: head by head and chunk by chunk; the last takes what is left."""
    width, tokens = q.shape[1] // heads, q.shape[3]
    keys = b.emit("transpose", x=k, perm=(0, 3, 2, 1))
    outputs = []
    for n in range(heads):
        q_n, v_n = (_head(b, x, 1, n, width) for x in (q, v))
        k_n = _head(b, keys, 3, n, width)
        chunks = []
        for start in range(0, tokens, chunk_size):
            stop = min(start + chunk_size, tokens)
            scores = b.emit("einsum", values=(k_n, _part(b, q_n, 3, start, stop)), equation="bkhc,bchq->bkhq")
            scores = _masked(b, _scaled(b, scores, width), _of_queries(b, mask, start, stop), n)
            pair = (v_n, b.emit("softmax", x=scores, axis=1))
            chunks.append(b.emit("einsum", values=pair, equation="bchk,bkhq->bchq"))
        outputs.append(b.emit("concat", values=chunks, axis=3))
    return b.emit("concat", values=outputs, axis=1)


def sdpa(b: Builder, q: Any, k: Any, v: Any, mask: Any, heads: int) -> Any:
    """:func:`sd_attention.sdpa`: the operation of iOS18, which divides the scores by sqrt(D) itself."""
    batch, channels, _, length = q.shape
    rows = {
        name: b.emit("transpose", x=b.emit("reshape", x=x, shape=_by_head(x, heads)), perm=(0, 1, 3, 2))
        for name, x in {"query": q, "key": k, "value": v}.items()
    }
    masked = {} if mask is None else {"attn_mask": mask}
    output = b.emit("scaled_dot_product_attention", **rows, **masked)
    output = b.emit("transpose", x=output, perm=(0, 1, 3, 2))
    return b.emit("reshape", x=output, shape=(batch, channels, 1, length))


#: The implementations by name, as :data:`sd_attention.IMPLEMENTATIONS` has them; V2 of a single chunk is V1.
EXPANSIONS: Final[dict[str, _Expansion]] = {
    "ORIGINAL": original,
    "SPLIT_EINSUM": split_einsum,
    "SPLIT_EINSUM_V2": split_einsum,
    "SDPA": sdpa,
}


def _by_head(x: Any, heads: int) -> tuple[int, ...]:
    """The shape (B, N, D, S) of x (B, C, 1, S)."""
    return x.shape[0], heads, x.shape[1] // heads, x.shape[3]


def _head(b: Builder, x: Any, axis: int, number: int, width: int) -> Any:
    """Channels of one head: ``width`` of them on ``axis``."""
    return _part(b, x, axis, number * width, (number + 1) * width)


def _of_queries(b: Builder, mask: Any, start: int, stop: int) -> Any:
    """The part of a mask (B|1, N|1, Q|1, S) that belongs to some queries."""
    return mask if mask is None or mask.shape[2] == 1 else _slice(b, mask, 2, start, stop)


def _slice(b: Builder, mask: Any, axis: int, start: int, stop: int) -> Any:
    if isinstance(mask, np.ndarray):
        return np.take(mask, range(start, stop), axis)
    return _part(b, mask, axis, start, stop)


def _part(b: Builder, x: Any, axis: int, start: int, stop: int) -> Any:
    """What is between two places on ``axis``."""
    begin, end = [0] * 4, list(x.shape)
    begin[axis], end[axis] = start, stop
    return b.emit("slice_by_index", x=x, begin=begin, end=end)


def _scaled(b: Builder, scores: Any, width: int) -> Any:
    return b.emit("mul", x=scores, y=b.number(width**-0.5))


def _masked(b: Builder, scores: Any, mask: Any, head: int) -> Any:
    """Scores (B, S, 1, Q) plus the mask of their head."""
    if mask is None:
        return scores
    one = _slice(b, mask, 1, head, head + 1) if mask.shape[1] > 1 else mask
    if isinstance(one, np.ndarray):
        one = np.ascontiguousarray(one.transpose(0, 3, 1, 2))
    else:
        one = b.emit_once("transpose", one, perm=(0, 3, 1, 2))
    return b.emit("add", x=scores, y=one)


@lowers("aten.scaled_dot_product_attention.default")
def whole_attention(
    b: Builder,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | torch.Tensor | None = None,
    _dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """torch's attention on (B, N, S, D); the queries are scaled first, which keeps float16 scores small."""
    if enable_gqa:
        raise LoweringError(f"{b.scope}: expected as many key heads as query heads, got shared ones")
    if is_causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    scale = q.shape[3] ** -0.5 if scale is None else scale
    queries = Tensor(b.emit("mul", x=q.var, y=b.number(scale)), q.view)
    scores = b.emit("matmul", x=b.plain(queries), y=b.plain(k), transpose_x=False, transpose_y=True)
    additive = _additive(b, mask)
    if additive is not None:
        scores = b.emit("add", x=scores, y=additive)
    weights = b.emit("softmax", x=scores, axis=-1)
    return stored(b.emit("matmul", x=weights, y=b.plain(v), transpose_x=False, transpose_y=False))
