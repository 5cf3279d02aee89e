"""Attention of Hugging Face diffusers: UNet2DCondition, ControlNet, VAE, SD3's joint attention and others.

Nothing is imported from the library: attention is a module with a ``processor``, and the processor is what
calls torch. Tested with diffusers 0.42.
"""

from __future__ import annotations

from torch import nn

from .functions import Attention
from .fused import mentions, with_attention
from .rewrite import Refusal, Replacement, Rule


def attention(attend: Attention) -> Rule:
    """A rule for modules with a processor that calls torch's fused attention; ``attend`` works in BSC.

    Norms of queries and keys, added projections (SD3's text tokens), masks and residuals stay as they are.
    Other processors (sliced, xFormers, the unfused ``AttnProcessor``) are refused with the reason.
    """

    def rule(module: nn.Module) -> Replacement | Refusal | None:
        processor = getattr(module, "processor", None)
        if processor is None or not callable(processor) or not hasattr(module, "set_processor"):
            return None
        if not mentions(type(processor).__call__, "scaled_dot_product_attention", "dispatch_attention_fn"):
            return Refusal(
                f"its processor {type(processor).__name__} does not call torch's "
                "scaled_dot_product_attention: give it one that does, such as AttnProcessor2_0"
            )
        if getattr(processor, "_attention_backend", None) not in (None, "native"):
            return Refusal(f"its attention backend is {processor._attention_backend}, expected native")
        return Replacement(with_attention(module, attend), enter=True)

    return rule
