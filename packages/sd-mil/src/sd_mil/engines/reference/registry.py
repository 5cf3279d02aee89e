"""Which function computes which MIL operation.

An op is a function with the op's own name and the specification's parameter names, from numpy arrays (a
``str`` for text) to an array, or to a tuple of arrays where the op has several outputs. Optional parameters
have MIL's own defaults. Floats arrive as fp32 whatever their declared type, and integers as declared; the
interpreter brings results into the declared type.

A form is an op with nested blocks: its function gets them first, as functions from values to a tuple of
values, and then its parameters.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias, TypeVar

import numpy as np

from sd_mil.constexpr import CODECS
from sd_mil.engines.reference.values import Array, Value
from sd_mil.ir.limits import check_broadcast

Implementation: TypeAlias = Callable[..., "Value | tuple[Value, ...]"]
#: A nested block, ready to run: from the values of its inputs to those of its outputs.
BlockFunction: TypeAlias = Callable[..., "tuple[Any, ...]"]

_SCALAR = re.compile(r"Array \| (float|int|bool)\b")
_F = TypeVar("_F", bound=Implementation)

__all__ = [
    "OPS",
    "Array",
    "BlockFunction",
    "Op",
    "alias",
    "axis_of",
    "check_counts",
    "find_op",
    "form",
    "mean_of",
    "op",
]


@dataclass(frozen=True)
class Op:
    """An implementation.

    ``variadic`` names the parameters that take tuples of arrays; ``choices`` has the values that
    some parameters are limited to, so that others are refused before anything runs; ``ignored`` are
    parameters that change nothing in the result, because its dtype follows from the declared type, or because
    they only allow an implementation to do less. ``blocks`` is the number of nested blocks that a form takes;
    ``stored`` says that numbers are taken and given in the dtypes they are stored in, fp16 as fp16.
    """

    function: Implementation
    signature: inspect.Signature
    variadic: frozenset[str]
    choices: Mapping[str, Collection[object]]
    ignored: frozenset[str]
    blocks: int = 0
    stored: bool = False

    @cached_property
    def scalars(self) -> frozenset[str]:
        """The parameters that are one number: more would be broadcast to what they belong to."""
        return frozenset(
            name for name, one in self.signature.parameters.items() if _SCALAR.match(str(one.annotation))
        )


#: Filled by the modules of :mod:`sd_mil.engines.reference.ops` as they are imported.
OPS: dict[str, Op] = {}


def find_op(name: str) -> Op | None:
    """What computes an operation of that type; weights are decoded by the codecs there are."""
    codec = CODECS.get(name)
    if codec is None:
        return OPS.get(name)
    return Op(codec.decode, codec.signature, frozenset(), codec.choices, codec.ignored, stored=True)


def op(
    name: str,
    *,
    variadic: str | tuple[str, ...] = (),
    choices: Mapping[str, Collection[object]] | None = None,
    ignored: tuple[str, ...] = (),
    stored: bool = False,
) -> Callable[[_F], _F]:
    """Register the decorated function as the implementation of a MIL operation.

    Raises:
        ValueError: the operation already has one.
    """

    def register(function: _F) -> _F:
        signature = inspect.signature(function)
        _register(
            name, Op(function, signature, _names(variadic), choices or {}, frozenset(ignored), stored=stored)
        )
        return function

    return register


def form(name: str, *, blocks: int, variadic: str | tuple[str, ...] = ()) -> Callable[[_F], _F]:
    """Register the decorated function as the implementation of an operation with nested blocks.

    Raises:
        ValueError: the operation already has one.
    """

    def register(function: _F) -> _F:
        whole = inspect.signature(function)
        signature = whole.replace(parameters=list(whole.parameters.values())[1:])
        _register(name, Op(function, signature, _names(variadic), {}, frozenset(), blocks))
        return function

    return register


def axis_of(axis: Array | int, rank: int) -> int:
    """The axis of a tensor of ``rank`` dimensions, counted from the first.

    Raises:
        ValueError: there is no such axis.
    """
    if not -rank <= int(axis) < rank:
        raise ValueError(f"axis {int(axis)} is out of bounds for {rank} dimensions")
    return int(axis) % rank


def mean_of(x: Array, axis: tuple[int, ...] | None, *, keepdims: bool) -> Array:
    """The mean over the axes; of no elements NaN, without the warning that numpy gives."""
    if x.size == 0:
        return np.asarray(x.sum(axis=axis, keepdims=keepdims) * np.float32(np.nan))
    return np.asarray(x.mean(axis=axis, keepdims=keepdims))


def check_counts(name: str, *counts: Any, least: int = 0) -> None:
    """Refuse counts that are too small to mean anything.

    Raises:
        ValueError: one is below ``least``.
    """
    if any(count < least for count in counts):
        raise ValueError(f"expected {name} from {least} on, got {[int(count) for count in counts]}")


def _names(variadic: str | tuple[str, ...]) -> frozenset[str]:
    return frozenset((variadic,) if isinstance(variadic, str) else variadic)


def _register(name: str, made: Op) -> None:
    if name in OPS:
        raise ValueError(f"expected one implementation of {name!r}, got a second: {made.function.__module__}")
    OPS[name] = made


def alias(name: str, function: np.ufunc) -> None:
    """Register a numpy function of one or two arrays under MIL's name and parameter names."""
    if function.nin == 1:
        op(name)(lambda x: np.asarray(function(x)))
    else:
        op(name)(partial(_binary, function))


def _binary(function: np.ufunc, x: Array, y: Array) -> Array:
    check_broadcast(x.shape, y.shape)
    return np.asarray(function(x, y))
