"""Which function computes which MIL operation.

An op is a function with the op's own name and the specification's parameter names, from numpy arrays (a
``str`` for text) to an array, or to a tuple of arrays where the op has several outputs. Optional parameters
have MIL's own defaults. Floats arrive as fp32 whatever their declared type, and integers as declared; the
interpreter brings results into the declared type.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Array: TypeAlias = "npt.NDArray[Any]"
Implementation: TypeAlias = Callable[..., "Array | tuple[Array, ...]"]

_F = TypeVar("_F", bound=Implementation)


@dataclass(frozen=True)
class Op:
    """An implementation.

    ``variadic`` names the parameter, if any, that takes a tuple of arrays; ``choices`` has the values that
    some parameters are limited to, so that others are refused before anything runs; ``ignored`` are
    parameters that change nothing in the result, because its dtype follows from the declared type, or because
    they only allow an implementation to do less.
    """

    function: Implementation
    signature: inspect.Signature
    variadic: str | None
    choices: Mapping[str, Collection[object]]
    ignored: frozenset[str]


#: Filled by the modules of :mod:`sd_mil.reference.ops` as they are imported.
OPS: dict[str, Op] = {}


def op(
    name: str,
    *,
    variadic: str | None = None,
    choices: Mapping[str, Collection[object]] | None = None,
    ignored: tuple[str, ...] = (),
) -> Callable[[_F], _F]:
    """Register the decorated function as the implementation of a MIL operation.

    Raises:
        ValueError: the operation already has one.
    """

    def register(function: _F) -> _F:
        if name in OPS:
            raise ValueError(f"expected one implementation of {name!r}, got a second: {function.__module__}")
        signature = inspect.signature(function)
        OPS[name] = Op(function, signature, variadic, choices or {}, frozenset(ignored))
        return function

    return register


def alias(name: str, function: np.ufunc) -> None:
    """Register a numpy function of one or two arrays under MIL's name and parameter names."""
    if function.nin == 1:
        op(name)(lambda x: np.asarray(function(x)))
    else:
        op(name)(lambda x, y: np.asarray(function(x, y)))
