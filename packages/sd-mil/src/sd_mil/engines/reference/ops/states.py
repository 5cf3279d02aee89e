"""Reading and writing what a model remembers from one prediction to the next.

coremltools exports its own ``coreml_update_state`` as ``write_state`` and, where the value is used,
``read_state``.
"""

from __future__ import annotations

from sd_mil.engines.reference.registry import Array, op
from sd_mil.engines.reference.values import Cell


@op("read_state")
def read_state(input: Cell) -> Array:  # noqa: A002 (the specification's name)
    """What the state holds now."""
    return input.value


@op("write_state")
def write_state(input: Cell, data: Array) -> tuple[()]:  # noqa: A002 (the specification's name)
    """Replaces what the state holds."""
    input.value = data
    return ()


@op("coreml_update_state")
def coreml_update_state(state: Cell, value: Array) -> Array:
    """Replaces what the state holds, and returns it."""
    state.value = value
    return value
