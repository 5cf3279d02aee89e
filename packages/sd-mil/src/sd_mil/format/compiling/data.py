"""``coremldata.bin`` and ``analytics/coremldata.bin``: the two small binary files of a compiled model.

::

    coremldata.bin
    0   u32 502 (the field of mlProgram in Model.proto), u32 5, 20 zeros
    28  u64 7, "generic", u64 specification version, 24 zeros, u64 length, the ModelDescription
        for each function: u32 502, 12 zeros

    analytics/coremldata.bin
    for each section: its name, u64 count, for each entry: its name, its text
    where names and texts are u64 lengths with the letters

Read off compiled models of coremlc 3500 and 3520; 5 and the zeros are the same in all that were at hand.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

_ML_PROGRAM = 502
_KIND = b"generic"
#: ``ModelDescription.metadata``, empty: the compiler adds it where there is none.
_EMPTY_METADATA = b"\xa2\x06\x00"


def coreml_data(description: bytes, version: int, functions: int, *, has_metadata: bool) -> bytes:
    """``coremldata.bin`` of an encoded ``ModelDescription`` and a specification version."""
    said = description if has_metadata else description + _EMPTY_METADATA
    head = _u32(_ML_PROGRAM) + _u32(5) + bytes(20)
    kind = _text(_KIND) + _u64(version) + bytes(24)
    return head + kind + _u64(len(said)) + said + (_u32(_ML_PROGRAM) + bytes(12)) * max(1, functions)


def analytics_data(model: bytes) -> bytes:
    """``analytics/coremldata.bin`` of the bytes of ``model.mlmodel``."""
    digest = base64.b64encode(hashlib.sha256(model).digest()).decode()
    sections: Mapping[str, Mapping[str, str]] = {
        "NeuralNetworkModelDetails": {"containsCustomLayer": "0", "modelDimension": "0"},
        "SpecificationDetails": {"modelHash": digest, "modelName": "model"},
    }
    return b"".join(_section(name, entries) for name, entries in sections.items())


def _section(name: str, entries: Mapping[str, str]) -> bytes:
    pairs = (_text(key.encode()) + _text(value.encode()) for key, value in entries.items())
    return _text(name.encode()) + _u64(len(entries)) + b"".join(pairs)


def _text(letters: bytes) -> bytes:
    return _u64(len(letters)) + letters


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")
