"""Attention that systems compute wrongly, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sd_mil.analysis.lint.rule import Hit, Source, rule
from sd_mil.analysis.lint.scope import Scope
from sd_mil.rewriting.scores import FUSED, LARGEST_BATCH, batch_of, is_rank_3

#: Channels of a head that have been seen to work (stablehlo-coreml#89).
_WIDEST_HEAD: Final = 256


@rule(
    "gpu-attention-rank-3",
    "error",
    says="Attention of rank 3 crashes on the GPU of macOS 27.2.",
    change="compute it on [1, heads, positions, channels]",
    source=Source(
        "MochiDiffusion#521: generation crash with some Core ML models on macOS 27.2",
        "https://github.com/MochiDiffusion/MochiDiffusion/issues/521",
        "2026-09-21",
    ),
    devices=("mac",),
    since=27,
    repair=True,
)
def gpu_attention_rank_3(scope: Scope) -> Iterator[Hit]:
    """Products and softmax, or one operation, over matrices in one batch."""
    for found in scope.attentions:
        if is_rank_3(found):
            yield Hit("attention of rank 3", found.operations[found.softmax])


@rule(
    "gpu-attention-batch",
    "error",
    says=f"The GPU's fused attention computes wrong numbers for more than {LARGEST_BATCH} samples, also "
    "where Core ML fuses products and a softmax by itself.",
    change=f"compute it for at most {LARGEST_BATCH} samples at a time",
    source=Source(
        "apple/coremltools#2650: GPU produces incorrect results for fused SDPA when batch >= 10",
        "https://github.com/apple/coremltools/issues/2650",
        "read 2026-11",
    ),
    since=18,
    repair=True,
)
def gpu_attention_batch(scope: Scope) -> Iterator[Hit]:
    """Attention whose first of at least four dimensions is large."""
    for found in scope.attentions:
        if batch_of(found) > LARGEST_BATCH:
            yield Hit(f"attention over {batch_of(found)} samples", found.operations[found.softmax])


@rule(
    "ane-fused-attention",
    "warning",
    says="From macOS 26.5 on the Neural Engine's compiler fails on a function with two or more fused "
    "attentions of wide heads, and Core ML falls back to the CPU without a word.",
    change="convert with products and a softmax (SPLIT_EINSUM, ORIGINAL) instead of SDPA",
    source=Source(
        "kasper0406/stablehlo-coreml#89 (comment)",
        "https://github.com/kasper0406/stablehlo-coreml/pull/89",
        "2026-08-26",
    ),
    since=26,
)
def ane_fused_attention(scope: Scope) -> Iterator[Hit]:
    """Two or more fused attentions whose heads are wider than those that are known to work."""
    wide = [
        found.operations[0]
        for found in scope.attentions
        if found.operations[0].type == FUSED and (found.result.type.shape[-1] or 0) > _WIDEST_HEAD
    ]
    if len(wide) > 1:
        for operation in wide:
            yield Hit("a fused attention of wide heads", operation)
