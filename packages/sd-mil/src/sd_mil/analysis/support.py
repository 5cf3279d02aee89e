"""Which operations of a program the engines do not know, without compiling it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec

from sd_mil.ir.program import Program

#: Handled outside of the engines.
_ALWAYS = ("const", "classify")


def unsupported_operations(program: Program, function: str | None = None) -> Mapping[str, Mapping[str, int]]:
    """By engine, the operation types that it does not run, and how many operations have them.

    What OpenVINO does not run the portable engine runs in numpy, and nothing is translated that the reference
    engine does not know: both lack the same. The portable engine is left out where OpenVINO is not installed.
    """
    counts = Counter(operation.type for operation in program.operations(function))
    from sd_mil.engines.reference import ops  # noqa: F401 - registers them
    from sd_mil.engines.reference.registry import find_op

    missing = {kind: count for kind, count in counts.items() if kind not in _ALWAYS and find_op(kind) is None}
    return {"reference": missing} | ({"portable": missing} if find_spec("openvino") else {})
