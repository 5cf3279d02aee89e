"""Which operations of a program the engines do not know, without compiling it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sd_mil.ir.program import Program

#: Handled outside of the engines.
_ALWAYS = ("const", "classify")


def unsupported_operations(program: Program, function: str | None = None) -> Mapping[str, int]:
    """The operation types that neither engine runs, and how many operations have them.

    What OpenVINO does not run the portable engine runs in numpy, and nothing is translated that the reference
    engine does not know: both lack the same.
    """
    counts = Counter(operation.type for operation in program.operations(function))
    from sd_mil.engines.reference import ops  # noqa: F401 - registers them
    from sd_mil.engines.reference.registry import find_op

    return {kind: count for kind, count in counts.items() if kind not in _ALWAYS and find_op(kind) is None}
