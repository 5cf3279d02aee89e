"""``coremldata.bin`` and ``analytics/coremldata.bin``: the two small binary files of a compiled model.

::

    coremldata.bin
    0   u32 502 (the field of mlProgram in Model.proto), u32 5, 20 zeros
    28  u64 7, "generic", u64 specification version, 24 zeros, u64 length, the ModelDescription
        for each function: u32 502, 12 zeros

    coremldata.bin of a pipeline of n models
    0   u32 202, u32 1, 12 zeros, u32 1, u32 0
    28  the models' kinds and versions with "generic", as text, and the rest as above; after the description
        u64 n, u32 202, u32 0

    modelNames/coremldata.bin of a pipeline
    u64 n, for each model: its name

    analytics/coremldata.bin
    for each section: its name, u64 count, for each entry: its name, its text
    where names and texts are u64 lengths with the letters

Read off compiled models of coremlc 3500 and 3520; 5 and the zeros are the same in all that were at hand.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

_ML_PROGRAM, _PIPELINE = 502, 202
_KIND = b"generic"
#: ``ModelDescription.metadata``, empty: the compiler adds it where there is none.
_EMPTY_METADATA = b"\xa2\x06\x00"


def coreml_data(description: bytes, version: int, functions: int, *, has_metadata: bool) -> bytes:
    """``coremldata.bin`` of an encoded ``ModelDescription`` and a specification version."""
    head = _u32(_ML_PROGRAM) + _u32(5) + bytes(20)
    said = _described(_KIND, version, description, has_metadata=has_metadata)
    return head + said + (_u32(_ML_PROGRAM) + bytes(12)) * max(1, functions)


def pipeline_data(description: bytes, version: int, versions: Sequence[int], *, has_metadata: bool) -> bytes:
    """``coremldata.bin`` of a pipeline, whose models have these specification versions."""
    head = _u32(_PIPELINE) + _u32(1) + bytes(12) + _u32(1) + _u32(0)
    models = (f"generic.model{index}v{each}.0.0" for index, each in enumerate(versions))
    kind = "".join(models).encode() + _KIND
    said = _described(kind, version, description, has_metadata=has_metadata)
    return head + said + _u64(len(versions)) + _u32(_PIPELINE) + _u32(0)


def names_data(names: Sequence[str]) -> bytes:
    """``modelNames/coremldata.bin`` of a pipeline."""
    return _u64(len(names)) + b"".join(_text(name.encode()) for name in names)


def _described(kind: bytes, version: int, description: bytes, *, has_metadata: bool) -> bytes:
    said = description if has_metadata else description + _EMPTY_METADATA
    return _text(kind) + _u64(version) + bytes(24) + _u64(len(said)) + said


def analytics_data(model: bytes) -> bytes:
    """``analytics/coremldata.bin`` of the bytes of ``model.mlmodel``."""
    network = {"containsCustomLayer": "0", "modelDimension": "0"}
    return _analytics({"NeuralNetworkModelDetails": network}, model)


def pipeline_analytics_data(model: bytes, models: int) -> bytes:
    """The same of a pipeline of so many models."""
    return _analytics({"PipelineModelDetails": {"modelDimension": str(models)}}, model)


def _analytics(details: Mapping[str, Mapping[str, str]], model: bytes) -> bytes:
    digest = base64.b64encode(hashlib.sha256(model).digest()).decode()
    sections = {**details, "SpecificationDetails": {"modelHash": digest, "modelName": "model"}}
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
