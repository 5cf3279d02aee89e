"""Arithmetic that the Neural Engine has not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from sd_mil.analysis.lint.rule import Hit, Source, rule
from sd_mil.analysis.lint.scope import Scope
from sd_mil.ir.program import Operation
from sd_mil.ir.uses import names_used
from sd_mil.rewriting.moves import needless_casts

_TYPED: Final = Source(
    "Core ML Tools guide: Typed Execution",
    "https://apple.github.io/coremltools/docs-guides/source/typed-execution.html",
    "read 2026-11",
)
#: Kinds of operations that a finding names.
_NAMED: Final = 4


@rule(
    "fp32-program",
    "warning",
    says="The Neural Engine computes in fp16: what is fp32 runs on the CPU or the GPU.",
    change="convert it in fp16 where its values allow (`sdc run --overflow` finds those that do not)",
    source=_TYPED,
)
def fp32_program(scope: Scope) -> Iterator[Hit]:
    """Functions without an operation in fp16."""
    dtypes = Counter(output.type.dtype for _, output in scope.computed)
    if dtypes["fp32"] and not dtypes["fp16"]:
        yield Hit(f"all {dtypes['fp32']} operations on floats are in fp32")


@rule(
    "fp32-island",
    "warning",
    says="Operations in fp32 inside an fp16 program leave the Neural Engine, with a copy each way.",
    change="compute them in fp16, or keep them together so that there is one way out and back",
    source=_TYPED,
)
def fp32_island(scope: Scope) -> Iterator[Hit]:
    """Operations in fp32 that read one another, but for casts, where others are in fp16."""
    if not any(output.type.dtype == "fp16" for _, output in scope.computed):
        return
    single = {
        id(operation): operation
        for operation, output in scope.computed
        if output.type.dtype == "fp32" and operation.type != "cast"
    }
    for island in _islands(list(single.values())):
        kinds = Counter(one.type for one in island)
        named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_NAMED))
        more = ", …" if len(kinds) > _NAMED else ""
        yield Hit(f"{named}{more} in fp32", island[0])


def _islands(operations: list[Operation]) -> list[list[Operation]]:
    """Operations in order, those together that are joined by what they read."""
    islands: dict[int, list[Operation]] = {}
    place: dict[str, int] = {}
    for index, operation in enumerate(operations):
        joined = {place[name] for name in names_used(operation) if name in place}
        members = [one for other in sorted(joined) for one in islands.pop(other)] + [operation]
        islands[index] = members
        place |= {output.name: index for one in members for output in one.outputs}
    return list(islands.values())


@rule(
    "needless-cast",
    "note",
    says="A cast to fp32 and back, with nothing computed in between, is a copy each way for nothing.",
    change="leave both casts out",
    source=_TYPED,
    repair=True,
)
def needless_cast(scope: Scope) -> Iterator[Hit]:
    """Casts to fp16 of what was fp16 before."""
    for operation in needless_casts(scope.function.body):
        yield Hit("a cast back to fp16 of what was fp16", operation)
