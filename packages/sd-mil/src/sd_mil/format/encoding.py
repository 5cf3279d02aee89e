"""The protobuf wire format, written."""

from __future__ import annotations

import struct
from collections.abc import Iterable


def varint(value: int) -> bytes:
    """A number in base 128, least significant first; negative ones as 64-bit two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, payload: bytes) -> bytes:
    """A field of bytes: a message, a text or packed numbers."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def integer(number: int, value: int) -> bytes:
    """A field that holds a varint."""
    return varint(number << 3) + varint(value)


def double(number: int, value: float) -> bytes:
    """A field that holds a double."""
    return varint(number << 3 | 1) + struct.pack("<d", value)


def single(number: int, value: float) -> bytes:
    """A field that holds a float."""
    return varint(number << 3 | 5) + struct.pack("<f", value)


def text(number: int, content: str) -> bytes:
    """A field that holds a string."""
    return field(number, content.encode())


def mapping(number: int, entries: Iterable[tuple[str, bytes]]) -> bytes:
    """A ``map<string, message>``."""
    return b"".join(field(number, text(1, key) + field(2, value)) for key, value in entries)
