"""What a program has of weights that is computed from them: an expression, evaluated when weights are read.

Position embeddings, say, are rows of a table. Torch could compute them while a network is lowered, but then
the program would be for these weights only; as an expression they are computed of any.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_convert.components.component import Tensors

#: The name of a tensor, or the name of a function, its operands, and the numbers that it takes besides.
Expression: TypeAlias = "str | tuple[Any, ...]"
Array: TypeAlias = "npt.NDArray[Any]"

#: Elements of the largest value that is computed, so that a file cannot ask for memory.
_MOST: Final = 2**26


def _rows(x: Array, count: int) -> Array:
    """The first rows of a table."""
    if not 0 < count <= len(x):
        raise ValueError(f"expected up to {len(x)} rows, got {count}")
    return x[:count]


def _broadcast(x: Array, *shape: int) -> Array:
    """Axes of size one, or that are missing in front, repeated."""
    if math.prod(shape) > _MOST:
        raise ValueError(f"expected up to {_MOST} elements, got {list(shape)}")
    return np.broadcast_to(x, shape)


def _norm(x: Array, axis: int) -> Array:
    """Euclidean lengths along an axis, which stays, with size one."""
    lengths: Array = np.sqrt(np.square(x).sum(axis=axis, keepdims=True, dtype=np.float32))
    return lengths


#: By name: how many operands come first, and the function of these and of numbers.
_FUNCTIONS: Final[Mapping[str, tuple[int, Callable[..., Array]]]] = {
    "rows": (1, _rows),
    "reshape": (1, lambda x, *shape: x.reshape(shape)),
    "transpose": (1, lambda x, first, second: x.swapaxes(first, second)),
    "broadcast": (1, _broadcast),
    "norm": (1, _norm),
    "at_least": (1, lambda x, least: np.maximum(x, np.float32(least))),
    "divide": (2, lambda x, y: x / y),
}


def evaluate(expression: Expression, tensors: Tensors) -> npt.NDArray[np.generic]:
    """The value: a tensor as it is, or what is computed, in float32.

    Raises:
        ValueError: the tensors have other shapes than the expression is for.
    """
    if isinstance(expression, str):
        return tensors[expression]
    count, function = _FUNCTIONS[expression[0]]
    operands = (np.asarray(evaluate(one, tensors), np.float32) for one in expression[1 : count + 1])
    return function(*operands, *expression[count + 1 :])


def names_in(expression: Expression) -> Iterator[str]:
    """The tensors that it is computed from, in order."""
    if isinstance(expression, str):
        yield expression
        return
    count, _ = _FUNCTIONS[expression[0]]
    for operand in expression[1 : count + 1]:
        yield from names_in(operand)


def renamed(expression: Expression, rename: Callable[[str], str]) -> Expression:
    """The same of tensors with other names."""
    if isinstance(expression, str):
        return rename(expression)
    count, _ = _FUNCTIONS[expression[0]]
    operands = (renamed(one, rename) for one in expression[1 : count + 1])
    return (expression[0], *operands, *expression[count + 1 :])


def as_text(expression: Expression) -> str:
    """The name itself, or the expression as JSON; :func:`from_text` is the inverse."""
    return expression if isinstance(expression, str) else json.dumps(expression)


def from_text(text: str) -> Expression:
    """The expression that was written.

    Raises:
        ValueError: it is none.
    """
    return _checked(json.loads(text)) if text.startswith("[") else text


def _checked(value: object) -> Expression:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value or value[0] not in _FUNCTIONS:
        raise ValueError(f"expected one of {', '.join(_FUNCTIONS)} of tensors, got {value!r:.100}")
    count, _ = _FUNCTIONS[value[0]]
    operands, numbers = value[1 : count + 1], value[count + 1 :]
    if len(operands) != count or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"expected {count} tensors and numbers, got {value!r:.100}")
    return (value[0], *map(_checked, operands), *numbers)
