"""Attention of Hugging Face transformers.

BERT, DistilBERT, CLIP, ViT, and whatever else takes its attention from ``ALL_ATTENTION_FUNCTIONS`` or torch.

Nothing is imported from the library: a module is recognised by what its ``forward`` refers to. Tested with
transformers 5; the attention classes of 4.x that call torch themselves are taken as well.
"""

from __future__ import annotations

from torch import nn

from .functions import Attention
from .fused import forward_of, fused_attention, mentions, with_attention
from .rewrite import Refusal, Replacement, Rule


def attention(attend: Attention) -> Rule:
    """A rule for the attention modules of a transformers model; ``attend`` works in BSC.

    The model must have been made with ``attn_implementation="sdpa"``, the default where a model supports it.
    Others are refused with the reason. As with ``sdpa``, no attention weights are returned.
    """
    calls_torch = fused_attention(attend)

    def rule(module: nn.Module) -> Replacement | Refusal | None:
        if not mentions(forward_of(module), "ALL_ATTENTION_FUNCTIONS"):
            return calls_torch(module)
        chosen = getattr(getattr(module, "config", None), "_attn_implementation", None)
        if chosen != "sdpa":
            return Refusal(f"expected attn_implementation='sdpa', got {chosen!r}: load the model with it")
        return Replacement(with_attention(module, attend), enter=True)

    return rule
