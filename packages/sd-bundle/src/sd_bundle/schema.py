"""Strict JSON to frozen dataclasses, and back. The dataclasses *are* the schema.

A field may be ``str``, ``int``, ``float``, ``bytes`` (base64 in JSON), ``Literal``, ``X | None``,
``tuple[X, ...]``, ``Mapping[str, X]`` or another dataclass. Nothing is coerced but an integer where a float
is due; unknown and missing fields are errors. Rules that a type cannot say live in the dataclass'
``__post_init__``, which raises :class:`ManifestError` with a path relative to itself; the reader puts the way
to it in front.
"""

from __future__ import annotations

import binascii
import dataclasses
import json
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from sd_bundle.errors import Literally, ManifestError

T = TypeVar("T")
Json = Any

_LARGEST = 2**53  # the integers that every JSON reader agrees on


def parse_json(text: str, *, infinities: bool = False) -> Json:
    """JSON without its loopholes: no duplicate keys, no NaN or infinities, no integer beyond 2**53.

    ``infinities`` lets ``Infinity`` and ``-Infinity`` pass, which Python's own json writes.

    Raises:
        ManifestError: not JSON, or JSON with one of the above.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_infinity if infinities else _refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except json.JSONDecodeError as error:
        where = Literally(f"{error.msg} at line {error.lineno}, column {error.colno}")
        raise ManifestError("$", "a JSON document", where) from None
    except RecursionError:
        raise ManifestError("$", "a JSON document", Literally("one nested too deeply")) from None


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    seen: dict[str, Json] = {}
    for key, value in pairs:
        if key in seen:
            raise ManifestError("$", "every key once", Literally(f"{key!r} twice in one object"))
        seen[key] = value
    return seen


def _refuse_constant(name: str) -> NoReturn:
    raise ManifestError("$", "finite numbers", Literally(name))


def _infinity(name: str) -> float:
    if name == "NaN":
        _refuse_constant(name)
    return float(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ManifestError("$", "finite numbers", Literally(digits))
    return number


def _bounded(digits: str) -> int:
    if len(digits) > len(str(-_LARGEST)) or abs(int(digits)) > _LARGEST:
        raise ManifestError("$", "integers up to 2**53", Literally(digits))
    return int(digits)


def decode(kind: type[T], value: Json, where: str = "$") -> T:
    """``value``, as :func:`parse_json` returned it, as a ``kind``.

    Raises:
        ManifestError: unknown field, missing field, wrong type, or a rule of the dataclass broken.
    """
    return cast(T, _decode(kind, value, where))


def _decode(kind: Any, value: Json, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(cast(type, kind), value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _decode_literal(arguments, value, where)
    if origin in (Union, types.UnionType):
        (present,) = (option for option in arguments if option is not type(None))
        return None if value is None else _decode(present, value, where)
    if origin is tuple:
        items = _expect(list, value, where)
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is Mapping:
        members = _expect(dict, value, where)
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in members.items()}
    return _decode_scalar(kind, value, where)


def _decode_dataclass(kind: type, value: Json, where: str) -> Any:
    members = _expect(dict, value, where)
    hints = _field_types(kind)
    names = list(hints)
    for name in members:
        if name not in names:
            raise ManifestError(f"{where}.{name}", f"one of the fields {', '.join(names)}", name)
    for name in names:
        if name not in members:
            raise ManifestError(f"{where}.{name}", "this field", Literally("nothing"))
    fields = {name: _decode(hints[name], members[name], f"{where}.{name}") for name in names}
    try:
        return kind(**fields)
    except ManifestError as error:
        raise ManifestError(where + error.where.removeprefix("$"), error.expected, error.got) from None


@cache
def _field_types(kind: type) -> dict[str, Any]:
    """The types of a dataclass' fields in their order; found once, since annotations are text."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _decode_literal(choices: tuple[Json, ...], value: Json, where: str) -> Json:
    for choice in choices:
        if value == choice and type(value) is type(choice):
            return choice
    raise ManifestError(where, " or ".join(repr(choice) for choice in choices), value)


def _decode_scalar(kind: type, value: Json, where: str) -> Json:
    if kind is float and type(value) is int:
        return float(value)
    if kind is bytes:
        return _decode_bytes(_expect(str, value, where), where)
    return _expect(kind, value, where)


def _decode_bytes(text: str, where: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # also of letters beyond ASCII
        raise ManifestError(where, "base64", Literally(str(error))) from None


_NAMED = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}


def _expect(kind: type, value: Json, where: str) -> Json:
    if type(value) is not kind:
        raise ManifestError(where, _NAMED[kind], value)
    return value


def encode(value: object) -> Json:
    """The JSON value of a dataclass: the inverse of :func:`decode`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False).decode("ascii")
    return value
