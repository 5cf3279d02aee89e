"""Which MIL operation is translated by which function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from openvino import Output

    from sd_mil.engines.openvino.call import Call

#: Turns one operation into graph outputs: one, or as many as the operation has.
Translator: TypeAlias = "Callable[[Call], Output | Sequence[Output]]"
Function = TypeVar("Function", bound=Translator)

#: By type; filled by importing :mod:`sd_mil.engines.openvino.ops`.
TRANSLATORS: dict[str, Translator] = {}


def translate(*types: str) -> Callable[[Function], Function]:
    """Register the decorated function for MIL operations of these types; a second owner is a mistake."""

    def register(function: Function) -> Function:
        for name in types:
            if name in TRANSLATORS:
                raise RuntimeError(
                    f"MIL op {name!r} is translated twice: by {TRANSLATORS[name]} and {function}"
                )
            TRANSLATORS[name] = function
        return function

    return register


def find_translator(op_type: str) -> Translator | None:
    """The function that translates ``op_type``, or None."""
    return TRANSLATORS.get(op_type)
