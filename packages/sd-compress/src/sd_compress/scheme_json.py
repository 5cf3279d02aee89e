"""Schemes as a recipe has them: JSON objects with a method and the fields that differ from their defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from .errors import RecipeError
from .granularity import Granularity, PerBlock, PerChannel, PerGroupedChannel, PerTensor
from .schemes import Activations, Joint, Keep, Linear, Palettize, Prune, Scheme

_T = TypeVar("_T")

_GRANULARITIES: Final[Mapping[str, type[Granularity]]] = {
    "per_tensor": PerTensor,
    "per_channel": PerChannel,
    "per_grouped_channel": PerGroupedChannel,
    "per_block": PerBlock,
}
_GRANULARITY_OF: Final[Mapping[type, tuple[str, ...]]] = {
    Palettize: ("per_tensor", "per_grouped_channel"),
    Linear: ("per_tensor", "per_channel", "per_block"),
}
_METHODS: Final[Mapping[str, type[Scheme]]] = {
    "keep": Keep,
    "palettize": Palettize,
    "linear": Linear,
    "prune": Prune,
    "joint": Joint,
}


def scheme_to_json(scheme: Scheme) -> dict[str, Any]:
    """The scheme as a recipe has it: ``{"method": "palettize", "nbits": 6}``; defaults are left out."""
    method = next(name for name, kind in _METHODS.items() if isinstance(scheme, kind))
    if isinstance(scheme, Joint):
        return {"method": method, "prune": _stated(scheme.prune), "then": scheme_to_json(scheme.then)}
    return {"method": method, **_stated(scheme)}


def scheme_from_json(value: object, where: str = "$") -> Scheme:
    """The inverse of :func:`scheme_to_json`; ``where`` is the place in the file, for messages.

    Raises:
        RecipeError: not an object, an unknown method or field, or a value that the method does not have.
    """
    fields = dict(_object(value, where))
    method = fields.pop("method", None)
    if not isinstance(method, str) or method not in _METHODS:
        raise RecipeError(f"{where}.method: expected one of {', '.join(_METHODS)}, got {method!r}")
    kind = _METHODS[method]
    if kind is Joint:
        return _joint(fields, where)
    if kind in _GRANULARITY_OF:
        fields = _with_granularity(kind, fields, where)
    if kind is Linear and "activations" in fields:
        inner = f"{where}.activations"
        given = dict(_object(fields["activations"], inner, "an object"))
        fields["activations"] = _built(Activations, given, inner)
    return _built(kind, fields, where)


def _stated(scheme: Scheme | Granularity | Activations) -> dict[str, Any]:
    """Every field that differs from its default; a granularity is one of several."""
    stated: dict[str, Any] = {}
    for field in dataclasses.fields(scheme):
        value = getattr(scheme, field.name)
        if value == field.default:
            continue
        if isinstance(value, Granularity):
            name = next(name for name, kind in _GRANULARITIES.items() if isinstance(value, kind))
            stated |= {field.name: name, **_stated(value)}
        elif isinstance(value, Activations):
            stated[field.name] = _stated(value)
        else:
            stated[field.name] = list(value) if isinstance(value, tuple) else value
    return stated


def _joint(fields: dict[str, Any], where: str) -> Joint:
    if fields.keys() != {"prune", "then"}:
        raise RecipeError(f"{where}: expected the fields prune and then, got {sorted(fields)}")
    prune = _built(Prune, dict(_object(fields["prune"], f"{where}.prune")), f"{where}.prune")
    then = scheme_from_json(fields["then"], f"{where}.then")
    return _built(Joint, {"prune": prune, "then": then}, where)


def _with_granularity(kind: type, fields: dict[str, Any], where: str) -> dict[str, Any]:
    """``fields`` with the granularity as a value; its own fields lie beside its name."""
    if "granularity" not in fields:
        return fields
    name, allowed = fields["granularity"], _GRANULARITY_OF[kind]
    if name not in allowed:
        raise RecipeError(f"{where}.granularity: expected one of {', '.join(allowed)}, got {name!r}")
    chosen = _GRANULARITIES[name]
    own = {field.name for field in dataclasses.fields(chosen)}
    inner = {key: value for key, value in fields.items() if key in own}
    rest = {key: value for key, value in fields.items() if key not in own}
    return {**rest, "granularity": _built(chosen, inner, where)}


def _built(kind: type[_T], fields: dict[str, Any], where: str) -> _T:
    """A dataclass of these fields, whose own checks say what is wrong with them."""
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(fields.keys() - known.keys()):
        raise RecipeError(f"{where}: expected fields of {', '.join(known) or 'none'}, got {unknown}")
    missing = [
        name for name, one in known.items() if one.default is dataclasses.MISSING and name not in fields
    ]
    if missing:
        raise RecipeError(f"{where}: expected the fields {missing}, got {sorted(fields)}")
    try:
        return kind(**{key: tuple(one) if isinstance(one, list) else one for key, one in fields.items()})
    except RecipeError as error:
        raise RecipeError(f"{where}{error}") from None


def _object(value: object, where: str, expected: str = "an object with a method") -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where}: expected {expected}, got {value!r}")
    return value
