"""Which implementation, and how many queries at a time, for given sizes and a target.

What decides is the largest tensor of attention, the scores: ``Q x S`` numbers for each head and batch.
Sources, named in what :func:`recommend` says:

- Apple, "Deploying Transformers on the Apple Neural Engine" (machinelearning.apple.com/research/
  neural-engine-transformers): BC1S, head by head, large intermediate tensors cut into chunks that stay in
  the L2 cache, and a last axis that is a multiple of 64 bytes.
- apple/ml-stable-diffusion, attention.py: ``SPLIT_EINSUM_V2`` with ``CHUNK_SIZE = 512``, in use with 4096
  keys (512x512 pixels) and a batch of 2, which is 8 MiB of float16 scores.
- apple/coremltools#1003 and microsoft/onnxruntime#19543: Core ML leaves the Neural Engine where an axis is
  longer than 16384.
- vllm-project/vllm-metal#51: Metal's graphs take up to 4 GiB in one tensor; 1 GiB is used as a cautious
  limit.
- apple/coremltools, iOS18 ``scaled_dot_product_attention``: one fused operation, from iOS 18 and macOS 15 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from torch import Tensor

from .errors import RecommendationError
from .functions import CHUNK_SIZE, IMPLEMENTATIONS, Attention

MEBIBYTE: Final = 2**20

#: Queries of a chunk are a multiple of this: 64 bytes of float16.
ALIGNMENT: Final = 32

#: The longest axis that the Neural Engine takes.
LONGEST_AXIS: Final = 16384


@dataclass(frozen=True, slots=True)
class AttentionTarget:
    """What attention is to run on. ``dataclasses.replace`` sets another budget.

    ``score_budget``: bytes that one tensor of scores should not exceed.
    ``itemsize``: bytes of a number.
    ``splits_heads``: whether the device wants heads one by one.
    ``is_fused``: whether it has torch's fused attention, or the iOS18 operation.
    """

    name: str
    score_budget: int
    itemsize: int = 2
    splits_heads: bool = False
    is_fused: bool = False


def _targets(*targets: AttentionTarget) -> dict[str, AttentionTarget]:
    return {target.name: target for target in targets}


#: Core ML's compute units, those with the operations of iOS18 and macOS15, and torch itself.
ATTENTION_TARGETS: Final[Mapping[str, AttentionTarget]] = MappingProxyType(
    _targets(
        AttentionTarget("CPU_AND_NE", 8 * MEBIBYTE, splits_heads=True),
        AttentionTarget("ALL", 8 * MEBIBYTE, splits_heads=True),
        AttentionTarget("CPU_AND_GPU", 1024 * MEBIBYTE),
        AttentionTarget("CPU_ONLY", 1024 * MEBIBYTE),
        AttentionTarget("CPU_AND_GPU_IOS18", 1024 * MEBIBYTE, is_fused=True),
        AttentionTarget("CPU_ONLY_IOS18", 1024 * MEBIBYTE, is_fused=True),
        AttentionTarget("TORCH", 1024 * MEBIBYTE, itemsize=4, is_fused=True),
    )
)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to use, and why.

    ``chunk_size``: queries at a time, None for all. ``score_bytes``: of the largest tensor of scores, 0 if
    none is kept.
    """

    implementation: str
    chunk_size: int | None
    score_bytes: int
    reason: str

    @property
    def attention(self) -> Attention:
        """The function to call, in BC1S."""
        function = IMPLEMENTATIONS[self.implementation]
        return function if self.chunk_size is None else partial(function, chunk_size=self.chunk_size)  # type: ignore[call-arg]


def recommend(
    tokens: int,
    heads: int,
    head_dim: int,
    target: str | AttentionTarget,
    *,
    keys: int | None = None,
    batch: int = 1,
) -> Recommendation:
    """The implementation for ``tokens`` queries on a target, one of :data:`ATTENTION_TARGETS` or one's own.

    ``keys``: how many keys there are, if not as many as queries.

    Raises:
        RecommendationError: an unknown target, or a size that is not positive.
    """
    keys = tokens if keys is None else keys
    place = _target_named(target) if isinstance(target, str) else target
    for name, size in {
        "tokens": tokens,
        "heads": heads,
        "head_dim": head_dim,
        "keys": keys,
        "batch": batch,
    }.items():
        if size < 1:
            raise RecommendationError(f"{name}: expected a positive size, got {size}")
    if place.is_fused:
        return Recommendation("SDPA", None, 0, f"{place.name} has fused attention, which keeps no scores")
    column = batch * keys * place.itemsize  # bytes of the scores of one query and head
    whole, one_head = heads * tokens * column, tokens * column
    budget = f"the {_bytes(place.score_budget)} that {place.name} takes well"
    if not place.splits_heads and whole <= place.score_budget:
        reason = f"all scores are {_bytes(whole)}, within {budget}"
        return Recommendation("ORIGINAL", None, whole, reason)
    if one_head <= place.score_budget:
        reason = f"the scores of a head are {_bytes(one_head)}, within {budget}; of all heads {_bytes(whole)}"
        return Recommendation("SPLIT_EINSUM", None, one_head, reason + _limits(place, tokens, keys))
    chunk = _chunk(place.score_budget // column, tokens)
    reason = (
        f"the scores of a head are {_bytes(one_head)}, above {budget}; "
        f"of {chunk} queries {_bytes(chunk * column)}"
    )
    return Recommendation("SPLIT_EINSUM_V2", chunk, chunk * column, reason + _limits(place, tokens, keys))


@dataclass(frozen=True, slots=True)
class Level:
    """A resolution of a UNet: its latent pixels, heads, channels of a head, and what both attentions want."""

    tokens: int
    heads: int
    head_dim: int
    self_attention: Recommendation
    cross_attention: Recommendation


def recommend_levels(
    height: int,
    width: int,
    heads: Sequence[tuple[int, int] | None],
    target: str | AttentionTarget,
    *,
    context: int = 77,
    batch: int = 2,
) -> tuple[Level, ...]:
    """A recommendation for each level of a UNet with attention; each level halves the latents.

    ``height``, ``width``: of the latents. ``heads``: of each level ``(heads, head_dim)``, None without
    attention; for Stable Diffusion 1.5 ``[(8, 40), (8, 80), (8, 160), (8, 160)]``, the last being the
    middle block's. ``context``: keys of the cross-attention. ``batch``: 2 with guidance.

    Raises:
        RecommendationError: an unknown target, a size that is not positive.
    """
    levels = []
    for number, level in enumerate(heads):
        if level is None:
            continue
        tokens = -(-height // 2**number) * -(-width // 2**number)
        levels.append(
            Level(
                tokens,
                *level,
                recommend(tokens, *level, target, batch=batch),
                recommend(tokens, *level, target, keys=context, batch=batch),
            )
        )
    return tuple(levels)


def recommended(target: str | AttentionTarget) -> Attention:
    """Attention in BC1S that does for each call what :func:`recommend` says of its sizes.

    In a rewritten UNet every level gets its own, and chunks only where they pay.

    Raises:
        RecommendationError: an unknown target.
    """
    return _Recommended(_target_named(target) if isinstance(target, str) else target)


@dataclass(frozen=True, slots=True)
class _Recommended:
    target: AttentionTarget

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, heads: int, *, dropout: float = 0.0
    ) -> Tensor:
        batch, channels, *_, tokens = q.shape
        head_dim = max(1, channels // max(1, heads))
        choice = recommend(tokens, heads, head_dim, self.target, keys=k.shape[-1], batch=batch)
        return choice.attention(q, k, v, mask, heads, dropout=dropout)


def _target_named(name: str) -> AttentionTarget:
    try:
        return ATTENTION_TARGETS[name]
    except KeyError:
        raise RecommendationError(
            f"target: expected one of {', '.join(ATTENTION_TARGETS)}, got {name!r}"
        ) from None


def _chunk(affordable: int, tokens: int) -> int:
    """The longest aligned chunk that is affordable, and no longer than what Apple uses."""
    aligned = min(affordable, CHUNK_SIZE) // ALIGNMENT * ALIGNMENT
    return min(max(aligned, ALIGNMENT), tokens)


def _limits(target: AttentionTarget, tokens: int, keys: int) -> str:
    longest = max(tokens, keys)
    if not target.splits_heads or longest <= LONGEST_AXIS:
        return ""
    return (
        f"; an axis of {longest} is longer than {LONGEST_AXIS}, so Core ML will not run it on the "
        "Neural Engine (apple/coremltools#1003)"
    )


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
