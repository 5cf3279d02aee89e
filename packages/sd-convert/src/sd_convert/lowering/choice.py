"""Which attention implementation each attention of a network becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from sd_mil.ir import Target

from sd_convert.conversion.options import COMPUTE_UNIT_OF_ATTENTION
from sd_convert.targets import has_fused_attention

_SPLITTING_UNITS = ("CPU_AND_NE", "ALL")


@dataclass(frozen=True, slots=True)
class Choice:
    """An implementation by name; ``chunk_size``: queries at a time, None for all."""

    implementation: str
    chunk_size: int | None = None


#: ``(batch, queries, keys, heads, channels of a head) -> Choice``
Choose: TypeAlias = Callable[[int, int, int, int, int], Choice]


def chooser(implementation: str, *, compute_unit: str | None, target: Target) -> Choose:
    """The same implementation for all sizes, or for AUTO what sd-attention recommends for each.

    ``compute_unit``: where AUTO is to run; None is the Neural Engine.
    """
    from sd_attention import CHUNK_SIZE, recommend

    if implementation != "AUTO":
        chunk_size = CHUNK_SIZE if implementation == "SPLIT_EINSUM_V2" else None
        return lambda *_: Choice(implementation, chunk_size)
    unit = compute_unit or COMPUTE_UNIT_OF_ATTENTION["AUTO"]
    is_fused = unit not in _SPLITTING_UNITS and has_fused_attention(target)
    place = f"{unit}_IOS18" if is_fused else unit

    def choose(batch: int, queries: int, keys: int, heads: int, width: int) -> Choice:
        best = recommend(queries, heads, width, place, keys=keys, batch=batch)
        return Choice(best.implementation, best.chunk_size)

    return choose
