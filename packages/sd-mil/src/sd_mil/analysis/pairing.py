"""Which output of one model is which of another: every one has its counterpart, or there is no comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from sd_mil.errors import ComparisonError

Reason: TypeAlias = Literal["name", "order", "shape and type"]


@dataclass(frozen=True, slots=True)
class Pair:
    """An output, what the other model calls it, and how that is known."""

    name: str
    other: str
    reason: Reason


def paired(expected: Mapping[str, Any], got: Mapping[str, Any]) -> tuple[Pair, ...]:
    """Every output with its counterpart, in the order of ``expected``.

    By name; the others by shape and type, where only one of each side has these. Outputs that have no names
    (a tuple: they are called 0, 1, ...) go in their order.

    Raises:
        ComparisonError: there is no output, or one has no counterpart that is beyond doubt.
    """
    if not expected and not got:
        raise ComparisonError("expected outputs to compare, got none from either model")
    if _unnamed(expected) != _unnamed(got) and len(expected) == len(got) > 1:
        return tuple(Pair(name, other, "order") for name, other in zip(expected, got, strict=True))
    pairs = {name: Pair(name, name, "name") for name in expected if name in got}
    left = {name: value for name, value in expected.items() if name not in pairs}
    right = {name: value for name, value in got.items() if name not in pairs}
    pairs |= {name: Pair(name, other, "shape and type") for name, other in _alike(left, right)}
    others = {pair.other for pair in pairs.values()}
    lost, more = _without(left, pairs), _without(right, others)
    if lost or more:
        raise ComparisonError(
            f"expected a counterpart for each output, of the same name or alone of its shape and type; "
            f"got none for {_said(lost)} of the first model, and for {_said(more)} of the second"
        )
    return tuple(pairs[name] for name in expected)


def renamed(inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """As many inputs under the names of another model: those that it has, and the others in their order.

    Raises:
        ComparisonError: there are more or fewer.
    """
    if len(inputs) != len(names):
        raise ComparisonError(
            f"expected as many inputs as {list(names)} of the other model, got {list(inputs)}"
        )
    others = iter([value for name, value in inputs.items() if name not in names])
    return {name: inputs[name] if name in inputs else next(others) for name in names}


def _without(outputs: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    known = set(names)
    return {name: value for name, value in outputs.items() if name not in known}


def _unnamed(outputs: Mapping[str, Any]) -> bool:
    return list(outputs) == [str(place) for place in range(len(outputs))]


def _alike(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, str]]:
    firsts, seconds = _by_signature(left), _by_signature(right)
    return [
        (names[0], seconds[signature][0])
        for signature, names in firsts.items()
        if len(names) == len(seconds.get(signature, ())) == 1
    ]


def _by_signature(outputs: Mapping[str, Any]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, value in outputs.items():
        names.setdefault(_signature(value), []).append(name)
    return names


def _signature(value: object) -> str:
    """What values of another name must have in common: floats of any width are alike, and integers are."""
    if isinstance(value, Mapping):
        return f"dictionary of {len(value)} labels"
    if isinstance(value, str):
        return "text"
    array = np.asarray(value)
    kind = {"f": "floats", "i": "integers", "u": "integers", "b": "booleans"}.get(
        array.dtype.kind, str(array.dtype)
    )
    shape = array.shape if array.size != 1 else ()
    return f"{kind} {list(shape)}"


def _said(outputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name!r} ({_signature(value)})" for name, value in outputs.items()) or "no output"
