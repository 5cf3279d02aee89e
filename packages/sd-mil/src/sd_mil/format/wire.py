"""The protobuf wire format, one level at a time.

A message is a sequence of ``key, payload`` where ``key = number << 3 | kind``. Nothing is known here of any
schema; the caller asks a :class:`Message` for field numbers. Every length is checked against the enclosing
message before it is used, and nesting and the number of fields are bounded, because the bytes are untrusted:
a field of two bytes takes fifty times as much memory here.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sd_mil.errors import PackageError, UnsupportedModelError

#: protobuf's own default; real programs nest about 20 deep.
MAX_DEPTH = 100
#: Of all messages of a file that are looked at; a UNet of 0.4 MB has 110,000.
MAX_FIELDS = 1 << 22
#: As protobuf has it.
_MAX_NUMBER = (1 << 29) - 1
#: How many fields take as much memory as a message without any.
_EMPTY_MESSAGE = 2

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
#: Key and value of a map's entry.
_ENTRY = frozenset({1, 2})
_FIXED_SIZE = {_FIXED64: 8, _FIXED32: 4}
_REALS = {4: "<f", 8: "<d"}

#: A varint is an int; everything else is the span ``start, end`` of its payload.
_Raw: TypeAlias = "int | tuple[int, int]"
_Bytes: TypeAlias = "bytes | mmap"


class _Budget:
    """How many fields, and numbers in packed fields, may still be parsed of a file."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_FIELDS

    def spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise PackageError(f"expected at most {MAX_FIELDS} fields and numbers in a model, got more")


class Message:
    """The fields of one message, by number. Sub-messages are parsed when they are asked for.

    Raises:
        PackageError: a field runs past the end, a varint is too long, nesting is too deep, there are too many
            fields, or one has a number that protobuf does not have.
    """

    __slots__ = ("_budget", "_data", "_depth", "_end", "_fields", "_start")

    def __init__(
        self,
        data: _Bytes,
        start: int = 0,
        end: int | None = None,
        *,
        depth: int = 0,
        budget: _Budget | None = None,
    ) -> None:
        """Parse one level of ``data[start:end]``; messages of one file share the ``budget`` of fields."""
        if depth > MAX_DEPTH:
            raise PackageError(f"expected at most {MAX_DEPTH} nested messages, got more at byte {start}")
        self._data = data
        self._start = start
        self._end = len(data) if end is None else end
        self._depth = depth
        self._budget = _Budget() if budget is None else budget
        self._fields = _parse(data, start, self._end, self._budget)

    @property
    def offset(self) -> int:
        """Where in the file this message starts, for error messages."""
        return self._start

    def __contains__(self, number: int) -> bool:
        """Whether the field is present."""
        return number in self._fields

    def numbers(self) -> tuple[int, ...]:
        """The field numbers present."""
        return tuple(self._fields)

    def unknown(self, known: frozenset[int]) -> bytes:
        """All fields of other numbers than these, as they are encoded, in order: usually none."""
        if self._fields.keys() <= known:
            return b""
        return b"".join(_other_fields(self._data, self._start, self._end, known))

    def refuse_unknown(self, known: frozenset[int], name: str, where: str) -> Message:
        """Itself, after checking that it has no other fields than these: they might change what it means.

        Raises:
            UnsupportedModelError: it has; ``name`` is that of the message type in Core ML's .proto files.
        """
        if not self._fields.keys() <= known:
            others = ", ".join(str(number) for number in sorted(self._fields.keys() - known))
            numbers = ", ".join(map(str, sorted(known)))
            raise UnsupportedModelError(
                f"expected no fields but {numbers} in the {name} of {where}, got fields {others}"
            )
        return self

    def integer(self, number: int, default: int = 0) -> int:
        """A varint as an unsigned 64-bit integer."""
        raw = self._single(number)
        if raw is None:
            return default
        if not isinstance(raw, int):
            raise self._wrong_kind(number, "an integer")
        return raw

    def signed(self, number: int, default: int = 0) -> int:
        """A varint as a two's complement 64-bit integer (``int32`` is written sign-extended)."""
        return _signed64(self.integer(number, default))

    def real(self, number: int) -> float | None:
        """A ``float`` or ``double``, or None where absent."""
        raw = self._single(number)
        if raw is None:
            return None
        payload = self.payload(number)
        if len(payload) not in _REALS:
            raise self._wrong_kind(number, "a float")
        return float(struct.unpack(_REALS[len(payload)], payload)[0])

    def text(self, number: int, default: str = "") -> str:
        """A UTF-8 string."""
        raw = self._single(number)
        return default if raw is None else self._decode(number, raw)

    def texts(self, number: int) -> tuple[str, ...]:
        """A repeated UTF-8 string."""
        return tuple(self._decode(number, raw) for raw in self._fields.get(number, ()))

    def payload(self, number: int) -> bytes:
        """The bytes of a field; pieces of a repeated fixed-width field are joined, packed or not."""
        return b"".join(self._data[slice(*self._span(number, raw))] for raw in self._fields.get(number, ()))

    def encoded(self, number: int) -> list[bytes]:
        """The bytes of each occurrence of a field, for who knows what they stand for."""
        return [self._data[slice(*self._span(number, raw))] for raw in self._fields.get(number, ())]

    def message(self, number: int) -> Message | None:
        """A sub-message, or None where absent."""
        raw = self._single(number)
        return None if raw is None else self._nested(number, raw)

    def messages(self, number: int) -> list[Message]:
        """A repeated sub-message."""
        return [self._nested(number, raw) for raw in self._fields.get(number, ())]

    def entries(self, number: int) -> list[tuple[str, Message]]:
        """A ``map<string, message>``, refusing a key that occurs twice."""
        found = [one.refuse_unknown(_ENTRY, "map entry", f"field {number}") for one in self.messages(number)]
        pairs = [(entry.text(1), entry.message(2) or Message(b"")) for entry in found]
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise PackageError(f"expected unique keys in the map at byte {self._start}, got {names}")
        return pairs

    def integers(self, number: int) -> npt.NDArray[np.int64]:
        """A repeated varint, packed or not, as two's complement 64-bit integers."""
        values: list[int] = []
        for raw in self._fields.get(number, ()):
            if isinstance(raw, int):
                values.append(raw)
            else:
                values.extend(_varints(self._data, *raw, self._budget))
        return np.array(values, dtype=np.uint64).view(np.int64)

    def _single(self, number: int) -> _Raw | None:
        raws = self._fields.get(number)
        if raws is None:
            return None
        if len(raws) > 1:
            raise PackageError(
                f"expected field {number} once in the message at byte {self._start}, got it {len(raws)} times"
            )
        return raws[0]

    def _span(self, number: int, raw: _Raw) -> tuple[int, int]:
        if isinstance(raw, int):
            raise self._wrong_kind(number, "bytes")
        return raw

    def _nested(self, number: int, raw: _Raw) -> Message:
        return Message(self._data, *self._span(number, raw), depth=self._depth + 1, budget=self._budget)

    def _decode(self, number: int, raw: _Raw) -> str:
        start, end = self._span(number, raw)
        try:
            return self._data[start:end].decode()
        except UnicodeDecodeError:
            raise PackageError(f"expected UTF-8 text in field {number}, got other bytes at {start}") from None

    def _wrong_kind(self, number: int, expected: str) -> PackageError:
        return PackageError(f"expected {expected} in field {number} of the message at byte {self._start}")


def _parse(data: _Bytes, position: int, end: int, budget: _Budget) -> dict[int, list[_Raw]]:
    fields: dict[int, list[_Raw]] = {}
    budget.spend(_EMPTY_MESSAGE)
    count, most = 0, budget.left
    while position < end:
        key, position = _varint(data, position, end)
        number, kind = key >> 3, key & 7
        count += 1
        if count > most:
            break
        if not 0 < number <= _MAX_NUMBER:
            raise PackageError(
                f"expected a protobuf field of number 1 to {_MAX_NUMBER} before byte {position}, got {number}"
            )
        raw: _Raw
        if kind == _VARINT:
            raw, position = _varint(data, position, end)
        else:
            raw = _payload_span(data, position, end, kind)
            position = raw[1]
        fields.setdefault(number, []).append(raw)
    budget.spend(count)
    return fields


def _other_fields(data: _Bytes, position: int, end: int, known: frozenset[int]) -> Iterator[bytes]:
    """Each field whose number is none of the known, with its key. The bytes were parsed before."""
    while position < end:
        start = position
        key, position = _varint(data, position, end)
        if key & 7 == _VARINT:
            _, position = _varint(data, position, end)
        else:
            _, position = _payload_span(data, position, end, key & 7)
        if key >> 3 not in known:
            yield data[start:position]


def _payload_span(data: _Bytes, position: int, end: int, kind: int) -> tuple[int, int]:
    if kind == _LENGTH:
        size, position = _varint(data, position, end)
    elif kind in _FIXED_SIZE:
        size = _FIXED_SIZE[kind]
    else:
        raise PackageError(f"expected a protobuf field at byte {position}, got wire type {kind}")
    if size > end - position:
        raise PackageError(f"expected {size} bytes at byte {position}, got {end - position} before the end")
    return position, position + size


def _varint(data: _Bytes, position: int, end: int) -> tuple[int, int]:
    if position < end and data[position] < 0x80:
        return data[position], position + 1
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise PackageError(
                f"expected the rest of a number at byte {position}, got the end of the message"
            )
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
    raise PackageError(f"expected a number of at most 10 bytes, got a longer one before byte {position}")


def _varints(data: _Bytes, position: int, end: int, budget: _Budget) -> list[int]:
    values: list[int] = []
    while position < end:
        if len(values) > budget.left:
            break
        value, position = _varint(data, position, end)
        values.append(value)
    budget.spend(len(values))
    return values


def _signed64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
