"""Equal parameters of operations as one constant.

coremltools makes a constant for every parameter of every operation, the unsaid ones included: three of five
operations in a UNet, nearly all of them alike. Sharing them takes two fifths off the time of lowering and
serialising, and off the size of ``model.mlmodel``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

_LARGEST: Final = 64  # elements; larger ones are weights or masks, which the program's own code shares


@contextmanager
def shared_literals() -> Iterator[None]:
    """Let coremltools' builder give equal small parameters the same constant, for one program."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - coremltools' own name for it

    original, made = mb._add_const, dict[Hashable, Any]()

    def add_const(value: Any, name: str, before_op: Any) -> Any:
        key = _key(value)
        if key is None:
            return original(value, name, before_op)
        if key not in made:
            made[key] = original(value, name, before_op)
        return made[key]

    mb._add_const = add_const
    try:
        yield
    finally:
        mb._add_const = original


def _key(value: Any) -> Hashable | None:
    """What tells a value and its type from others; None if it is not to be shared."""
    if isinstance(value, np.ndarray | np.generic):
        return (value.dtype.str, value.shape, value.tobytes()) if value.size <= _LARGEST else None
    if isinstance(value, bool | int | float | str):
        return type(value), repr(value)
    if isinstance(value, list | tuple) and len(value) <= _LARGEST:
        return type(value), tuple(map(_key, value))
    return None
