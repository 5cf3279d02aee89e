"""Compressed weights (``constexpr_*``), decoded while a program is translated.

The reference engine's decoders do it. OpenVINO has no lookup-table weights: it would fold them to fp32.
"""

from __future__ import annotations

from sd_mil.engines import reference
from sd_mil.engines.openvino.scope import Scope
from sd_mil.engines.reference.ops import OPS
from sd_mil.ir.program import Constant, Operation


def is_compressed(op_type: str) -> bool:
    """Whether an operation of this type decodes weights, in a way that is known."""
    return op_type.startswith("constexpr_") and op_type in OPS


def decompress(operation: Operation, scope: Scope) -> dict[str, Constant]:
    """What ``operation`` decodes to, by output name, in the dtypes that it declares.

    Raises:
        PackageError: an argument is not a constant, or the arguments do not fit each other.
    """
    return reference.decode(operation, scope.constant)
