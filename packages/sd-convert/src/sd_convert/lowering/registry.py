"""ATen operation -> the function that lowers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from sd_convert.errors import LoweringError

#: Takes the builder and the operation's own arguments, as values; returns a value or a tuple of them.
Lowerer: TypeAlias = Callable[..., Any]
_F = TypeVar("_F", bound=Lowerer)

_LOWERERS: dict[str, Lowerer] = {}


def lowers(*names: str) -> Callable[[_F], _F]:
    """Register the function that lowers the ATen operations ``names``, as ``aten.conv2d.default``."""

    def register(lowerer: _F) -> _F:
        for name in names:
            if name in _LOWERERS:
                raise ValueError(f"{name} is lowered twice: {_LOWERERS[name].__name__}, {lowerer.__name__}")
            _LOWERERS[name] = lowerer
        return lowerer

    return register


def lowerer_of(name: str, where: str) -> Lowerer:
    """The function that lowers ``name``.

    Raises:
        LoweringError: there is none; ``where`` is the path of the module that asked for it.
    """
    try:
        return _LOWERERS[name]
    except KeyError:
        raise LoweringError(
            f"{where or 'the model'}: expected an operation that can be lowered to Core ML, got {name}"
        ) from None


def lowered_operations() -> tuple[str, ...]:
    """The names of all ATen operations that are lowered, sorted."""
    return tuple(sorted(_LOWERERS))
