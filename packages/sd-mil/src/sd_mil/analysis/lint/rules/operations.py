"""Operations that the Neural Engine has no form of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from sd_mil.analysis.lint.rule import Hit, Source, rule
from sd_mil.analysis.lint.scope import Scope

_WHY: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("gru", "lstm", "rnn"), "a recurrent layer")
    | dict.fromkeys(("scatter", "scatter_along_axis", "scatter_nd"), "a scatter")
    | dict.fromkeys(("cond", "while_loop"), "control flow")
    | dict.fromkeys(
        ("list_gather", "list_length", "list_read", "list_scatter", "list_write", "make_list"), "a list"
    )
    | {"reduce_prod": "a product of elements", "non_zero": "a size that follows from values"}
)


@rule(
    "ane-operation",
    "warning",
    says="The Neural Engine has no form of these operations: they run on the CPU or the GPU, with a copy "
    "each way.",
    change="compute it otherwise (a select for a scatter, an exp of a sum of logs for a product), or "
    "in the app",
    source=Source(
        "Apple Neural Engine guide, 4: Capability surface; ANEForge: Capabilities",
        "https://ane-guide.readthedocs.io/en/latest/part-1-machine/04-capability-surface.html",
        "read 2026-11",
    ),
)
def ane_operation(scope: Scope) -> Iterator[Hit]:
    """By their kind."""
    for operation in scope.operations:
        if operation.type in _WHY:
            yield Hit(_WHY[operation.type], operation)
