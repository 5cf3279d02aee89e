"""Exact attention rewrites for any Transformer, in torch. Knows shapes, not models.

The legend of shapes, here and in every package that builds on this one:

====== ==========================================
``B``  batch
``C``  channels; in attention ``C = N * D``
``E``  channels of values or of an output, where they may differ from ``C``
``H W`` pixels, rows and columns
``S``  sequence: keys and values; ``Q``: queries
``N``  heads
``D``  channels of a head
====== ==========================================

Layouts: ``BSC`` (batch, sequence, channels), ``BC1S`` (batch, channels, 1, sequence), ``BCHW``.

Rules for the attention of two libraries are in :mod:`sd_attention.transformers` and
:mod:`sd_attention.diffusers`; neither imports its library.
"""

from .channels_first import (
    ChannelLayerNorm,
    ChannelsFirst,
    FeedForward,
    GatedGELU,
    Layout,
    PointwiseConv,
    ProjectedGELU,
)
from .errors import (
    AttentionShapeError,
    NothingReplacedError,
    RecommendationError,
    SdAttentionError,
    UnsupportedCallError,
)
from .functions import (
    CHUNK_SIZE,
    IMPLEMENTATIONS,
    Attention,
    original,
    sdpa,
    split_einsum,
    split_einsum_v2,
)
from .fused import attend_as_fused, fused_attention
from .layouts import on_bsc
from .masks import causal_mask, combine_masks, key_padding_mask
from .multihead import MultiheadAttention, multihead_attention
from .operator import OPERATOR_NAME, opaque
from .projected import DecoupledAttention, ProjectedAttention
from .recommend import (
    ATTENTION_TARGETS,
    AttentionTarget,
    Level,
    Recommendation,
    recommend,
    recommend_levels,
    recommended,
)
from .rewrite import Refusal, Replacement, Report, Rule, rewrite
from .rules import feed_forward, layer_norm, linear_to_conv, projected_attention

__all__ = [
    "ATTENTION_TARGETS",
    "CHUNK_SIZE",
    "IMPLEMENTATIONS",
    "OPERATOR_NAME",
    "Attention",
    "AttentionShapeError",
    "AttentionTarget",
    "ChannelLayerNorm",
    "ChannelsFirst",
    "DecoupledAttention",
    "FeedForward",
    "GatedGELU",
    "Layout",
    "Level",
    "MultiheadAttention",
    "NothingReplacedError",
    "PointwiseConv",
    "ProjectedAttention",
    "ProjectedGELU",
    "Recommendation",
    "RecommendationError",
    "Refusal",
    "Replacement",
    "Report",
    "Rule",
    "SdAttentionError",
    "UnsupportedCallError",
    "attend_as_fused",
    "causal_mask",
    "combine_masks",
    "feed_forward",
    "fused_attention",
    "key_padding_mask",
    "layer_norm",
    "linear_to_conv",
    "multihead_attention",
    "on_bsc",
    "opaque",
    "original",
    "projected_attention",
    "recommend",
    "recommend_levels",
    "recommended",
    "rewrite",
    "sdpa",
    "split_einsum",
    "split_einsum_v2",
]
