"""``.mlmodelc``: a compiled model, the program as text.

::

    model.mil  coremldata.bin  metadata.json  weights/weight.bin      an ML Program
    model0/  model1/  ...  coremldata.bin  modelNames/coremldata.bin  a pipeline of such folders

coremldata.bin holds the model description::

    28   u64 n, n letters ("generic"), u64 specification version, 24 zeros, u64 length, the description
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from mmap import mmap
from pathlib import Path
from types import MappingProxyType

from sd_mil.errors import PackageError, SdMilError, UnsupportedModelError
from sd_mil.format.blobs import WeightFiles
from sd_mil.format.description import default_function, read_descriptions, read_model_description
from sd_mil.format.files import inside, message_bytes, text_bytes, weight_locator
from sd_mil.format.scope import check_scopes
from sd_mil.format.text import parse_program
from sd_mil.format.wire import Message
from sd_mil.ir.program import Package, Pipeline, PipelineKind

_PROGRAM, _DATA = "model.mil", "coremldata.bin"
_NAMES = "modelNames/coremldata.bin"
#: Real ones have some dozen for each model.
_MAX_NAMES_BYTES = 1 << 20
_KIND_AT = 28
#: The first number of coremldata.bin: the field of the model in Model.proto.
_KINDS: Mapping[int, PipelineKind] = MappingProxyType({200: "classifier", 201: "regressor"})
_MAX_MODELS = 256
_NEURAL_NETWORK = ("model.espresso.net", "model.espresso.shape", "neural_network_optionals")


def is_compiled(root: Path) -> bool:
    """Whether the folder looks like a compiled model, and not like a package."""
    names = (_PROGRAM, _DATA, "model0")
    return not (root / "Manifest.json").exists() and any((root / name).exists() for name in names)


def read_compiled(root: Path) -> Package | Pipeline:
    """The program or the pipeline of a compiled model.

    Raises:
        PackageError: malformed, truncated or self-contradictory.
        UnsupportedModelError: encrypted, or neither an ML Program nor a pipeline of these.
    """
    return _read(root, root, 0)


def _read(folder: Path, root: Path, depth: int) -> Package | Pipeline:
    version, description = _description(folder)
    if (folder / _PROGRAM).exists():
        return _package(folder, root, version, description)
    if (folder / "model0").is_dir() and depth < 4:
        return _pipeline(folder, root, version, description, depth)
    found = "something else"
    if any((folder / name).exists() for name in _NEURAL_NETWORK):
        found = "a neural network"
    raise UnsupportedModelError(f"expected a compiled ML Program ({_PROGRAM}), got {found}")


def _package(folder: Path, root: Path, version: int, description: Message) -> Package:
    weights = WeightFiles(weight_locator(folder, shared=root))  # the models of a pipeline share one file
    program = parse_program(_text(folder), weights, default_function=default_function(description))
    check_scopes(program)
    described, by_function = read_descriptions(description, program)
    return Package(
        path=str(root),
        specification_version=version,
        description=described,
        program=program,
        weight_bytes=weights.total_bytes,
        descriptions=by_function,
    )


def _pipeline(folder: Path, root: Path, version: int, description: Message, depth: int) -> Pipeline:
    parts = [f"model{index}" for index in range(_MAX_MODELS)]
    parts = list(takewhile(lambda part: (folder / part).is_dir(), parts))
    models: dict[str, Package | Pipeline] = {}
    for name, part in zip(_names(folder, parts), parts, strict=True):
        try:
            models[name] = _read(folder / part, root, depth + 1)
        except SdMilError as error:
            raise type(error)(f"{part} of the pipeline: {error}") from error
    return Pipeline(
        path=str(root),
        specification_version=version,
        description=read_model_description(description),
        models=models,
        kind=_kind(folder),
        weight_bytes=sum(model.weight_bytes for model in models.values()),
    )


def _kind(folder: Path) -> PipelineKind:
    data = message_bytes(inside(folder, _DATA, "a compiled pipeline"))
    return _KINDS.get(int.from_bytes(data[:4], "little"), "pipeline")


def _names(folder: Path, parts: list[str]) -> list[str]:
    """What the models are called; those without names by their folders."""
    if not (folder / _NAMES).exists():
        return parts
    data = text_bytes(inside(folder, _NAMES, "a compiled pipeline"), _MAX_NAMES_BYTES)
    count, at = _number(data, 0, _NAMES), 8
    if count not in (0, len(parts)):
        raise PackageError(f"expected names of {len(parts)} models in {_NAMES}, got {count}")
    names: list[str] = []
    for _ in range(count):
        end = at + 8 + _number(data, at, _NAMES)
        if end > len(data):
            raise PackageError(f"expected a name up to byte {end} of {_NAMES}, got {len(data)} bytes")
        names.append(_decoded(data[at + 8 : end], _NAMES))
        at = end
    if len(set(names)) != len(names):
        raise PackageError(f"expected different names of models in {_NAMES}, got {names}")
    return names or parts


def _text(folder: Path) -> str:
    data = text_bytes(inside(folder, _PROGRAM, "a compiled model"))
    if not data.lstrip().startswith(b"program"):
        raise UnsupportedModelError(
            f"expected {_PROGRAM} to begin with 'program(', got something else: an encrypted or damaged model"
        )
    return _decoded(data, _PROGRAM)


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise PackageError(f"expected UTF-8 text in {name}, got other bytes") from None


def _description(folder: Path) -> tuple[int, Message]:
    data = message_bytes(inside(folder, _DATA, "a compiled model"))
    version_at = _KIND_AT + 8 + _number(data, _KIND_AT)
    length_at = version_at + 32
    start, length = length_at + 8, _number(data, length_at)
    if length > len(data) - start:
        raise PackageError(
            f"expected a model description of {length} bytes at byte {start} of {_DATA},"
            f" got {len(data) - start} bytes"
        )
    return _number(data, version_at), Message(data, start, start + length)


def _number(data: bytes | mmap, offset: int, name: str = _DATA) -> int:
    if offset + 8 > len(data):
        raise PackageError(f"expected a number at byte {offset} of {name}, got a file of {len(data)} bytes")
    return int.from_bytes(data[offset : offset + 8], "little")
