"""coremltools' builder for one program: names counted from zero, equal parameters as one constant.

coremltools makes a constant for every parameter of every operation, the unsaid ones included: three of five
operations in a UNet, nearly all of them alike. Sharing them takes two fifths off the time of lowering and
writing, and off the size of ``model.mlmodel``. Its own builder counts names for the whole process, so that
equal components become different programs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import Any, ClassVar, Final

import numpy as np

_LARGEST: Final = 64  # elements; larger ones are weights or masks, which the program's own code shares


def new_mil_builder() -> Any:
    """A class with coremltools' operations, which adds them to the block that is being built."""
    from coremltools.converters.mil.mil import Builder

    class ProgramBuilder(Builder):  # type: ignore[misc]
        """coremltools' own, with state of its own."""

        name_count: ClassVar[defaultdict[str, int]] = defaultdict(int)
        shared: ClassVar[dict[Hashable, Any]] = {}

        @classmethod
        def _add_const(cls, val: Any, name: str, before_op: Any) -> Any:
            key = _key(val)
            if key is None:
                return super()._add_const(val, name, before_op)
            if key not in cls.shared:
                cls.shared[key] = super()._add_const(val, name, before_op)
            return cls.shared[key]

    return ProgramBuilder


def _key(value: Any) -> Hashable | None:
    """What tells a value and its type from others; None if it is not to be shared."""
    if isinstance(value, np.ndarray | np.generic):
        return (value.dtype.str, value.shape, value.tobytes()) if value.size <= _LARGEST else None
    if isinstance(value, bool | int | float | str):
        return type(value), repr(value)
    if isinstance(value, list | tuple) and len(value) <= _LARGEST:
        return type(value), tuple(map(_key, value))
    return None
