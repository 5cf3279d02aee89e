"""Exact attention rewrites for any Transformer, in torch. Knows shapes, not models.

The legend of shapes, here and in every package that builds on this one:

====== ==========================================
``B``  batch
``C``  channels; in attention ``C = N * D``
``H W`` pixels, rows and columns
``S``  sequence: keys and values; ``Q``: queries
``N``  heads
``D``  channels of a head
====== ==========================================

Layouts: ``BSC`` (batch, sequence, channels), ``BC1S`` (batch, channels, 1, sequence), ``BCHW``.
"""

from .errors import AttentionShapeError, NothingReplacedError, SdAttentionError
from .functions import IMPLEMENTATIONS, Attention, on_bsc, original, split_einsum
from .operator import OPERATOR_NAME, opaque
from .rewrite import Refusal, Replacement, Report, Rule, rewrite
from .rules import ProjectedAttention, projected_attention

__all__ = [
    "IMPLEMENTATIONS",
    "OPERATOR_NAME",
    "Attention",
    "AttentionShapeError",
    "NothingReplacedError",
    "ProjectedAttention",
    "Refusal",
    "Replacement",
    "Report",
    "Rule",
    "SdAttentionError",
    "on_bsc",
    "opaque",
    "original",
    "projected_attention",
    "rewrite",
    "split_einsum",
]
