"""``torch.nn.MultiheadAttention`` around another attention function."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .errors import UnsupportedCallError
from .functions import Attention, softmax
from .masks import combine_masks
from .rewrite import Refusal, Replacement, Rule


class MultiheadAttention(nn.Module):
    """Torch's multi-head attention, its parameters under their names, around ``attend``, which works in BSC.

    Called as ``torch.nn.MultiheadAttention`` is, with its masks (boolean: True where a key may *not* be
    seen). Attention weights are computed beside ``attend`` and only if asked for; they are those before
    dropout. A query that sees nothing gets the output bias, where torch's own gives NaN if asked for
    weights.
    """

    #: Keeps ``torch.nn.TransformerEncoderLayer`` from its fast path, which would read the weights itself.
    _qkv_same_embed_dim = False

    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None

    def __init__(self, source: nn.MultiheadAttention, attend: Attention) -> None:
        """Share the parameters of ``source``."""
        super().__init__()
        self.embed_dim, self.num_heads = source.embed_dim, source.num_heads
        self.batch_first, self.dropout = source.batch_first, source.dropout
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"):
            self.register_parameter(name, getattr(source, name))
        self.out_proj = source.out_proj
        self.attend = attend

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output and, if asked for, the weights ``(B, Q, S)``, or ``(B, N, Q, S)`` unless averaged.

        Shapes: query ``(B, Q, C)``, or ``(Q, B, C)`` unless ``batch_first``, or ``(Q, C)``; key and value
        alike.

        Raises:
            UnsupportedCallError: nested tensors; ``is_causal`` without ``attn_mask``.
            AttentionShapeError: the shapes do not fit together.
        """
        if query.is_nested:
            raise UnsupportedCallError(
                "expected dense tensors, got a nested one: pad it and pass a padding mask"
            )
        if is_causal and attn_mask is None:
            raise UnsupportedCallError("expected attn_mask with is_causal, which is but a hint about it")
        batched = query.ndim == 3
        q, k, v = self._project(*(self._to_bsc(x) for x in (query, key, value)))
        mask = combine_masks(self._attention_mask(attn_mask), _padding_mask(key_padding_mask))
        dropout = self.dropout if self.training else 0.0
        output = self.out_proj(self.attend(q, k, v, mask, self.num_heads, dropout=dropout))
        weights = _weights(q, k, mask, self.num_heads) if need_weights else None
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1), weights

    def _to_bsc(self, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _project(self, q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
        weights: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = torch.split(self.in_proj_weight, self.embed_dim)
        biases: Any = (
            (None,) * 3 if self.in_proj_bias is None else torch.split(self.in_proj_bias, self.embed_dim)
        )
        return [functional.linear(x, w, b) for x, w, b in zip((q, k, v), weights, biases, strict=True)]

    def _attention_mask(self, mask: Tensor | None) -> Tensor | None:
        """Torch's (Q, S) or (B * N, Q, S) as (1|B, 1|N, Q, S), True where a key may be seen."""
        if mask is None:
            return None
        mask = torch.logical_not(mask) if mask.dtype == torch.bool else mask
        return mask[None, None] if mask.ndim == 2 else mask.reshape(-1, self.num_heads, *mask.shape[1:])


def multihead_attention(attend: Attention) -> Rule:
    """A rule for ``torch.nn.MultiheadAttention``; ``attend`` works in BSC.

    It also takes a ``torch.nn.TransformerEncoder`` that would pack padded batches into nested tensors for a
    fast path of its own, and turns that off. ``bias_k``, ``bias_v`` and ``add_zero_attn`` are refused.
    """

    def rule(module: nn.Module) -> Replacement | Refusal | None:
        if isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor:
            return Replacement(_without_nested_tensors(module), enter=True)
        if not isinstance(module, nn.MultiheadAttention):
            return None
        if type(module).forward is not nn.MultiheadAttention.forward:
            return Refusal(f"{type(module).__name__} has a forward of its own")
        if module.bias_k is not None or module.bias_v is not None or module.add_zero_attn:
            return Refusal("it adds keys of its own (bias_k, bias_v or add_zero_attn)")
        return Replacement(MultiheadAttention(module, attend))

    return rule


def _without_nested_tensors(encoder: nn.TransformerEncoder) -> nn.TransformerEncoder:
    clone = copy.copy(encoder)
    clone._modules = dict(encoder._modules)
    clone.use_nested_tensor = False
    return clone


def _padding_mask(mask: Tensor | None) -> Tensor | None:
    """Torch's (B, S) or (S), True where padding is, as (B, 1, 1, S), True where a key may be seen."""
    if mask is None:
        return None
    mask = torch.logical_not(mask) if mask.dtype == torch.bool else mask
    return mask.reshape(-1, 1, 1, mask.shape[-1])


def _weights(q: Tensor, k: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """Attention weights (B, N, Q, S) of q (B, Q, C) and k (B, S, C)."""
    q, k = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k))
    return softmax(q @ k.transpose(2, 3) * q.shape[3] ** -0.5, mask, 3)
