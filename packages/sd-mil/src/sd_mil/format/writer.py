"""From a program to an ``.mlpackage``: the inverse of the reader.

What is written is what is given: types, names and order are not checked, so that readers can be tested with
programs that lie. :func:`sd_mil.read_package` checks.

Source of the layout: coremltools' modelpackage/src/ModelPackage.cpp.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from sd_mil.format.appearing import appearing
from sd_mil.format.blob_writer import BlobLayout, Check
from sd_mil.format.description_writer import encode_description
from sd_mil.format.encoding import field, integer, text
from sd_mil.format.graph_writer import encode_program
from sd_mil.format.suppression import encode_suppression
from sd_mil.ir.joining import alone
from sd_mil.ir.pipelines import programs_in
from sd_mil.ir.ports import Description
from sd_mil.ir.program import Package, Pipeline, PipelineKind, Program, Suppression
from sd_mil.ir.uses import constants_in

#: Brings a file to another place, as it is or as a hard link.
Copy: TypeAlias = Callable[[Path, Path], object]

_AUTHOR = "com.apple.CoreML"
_SUPPRESSION = 610
_PIPELINES: Mapping[PipelineKind, int] = MappingProxyType(
    {"classifier": 200, "regressor": 201, "pipeline": 202}
)
_MODEL = f"Data/{_AUTHOR}/model.mlmodel"
#: Where a package has its weights.
WEIGHTS = f"Data/{_AUTHOR}/weights/weight.bin"


@dataclass(frozen=True, slots=True)
class WrittenPackage:
    """A package on the disk: the sha256 of each file by its path inside, and the bytes of all of them."""

    path: Path
    sha256: Mapping[str, str]
    bytes: int


def write_package(
    path: str | os.PathLike[str],
    program: Program,
    description: Description | Mapping[str, Description],
    *,
    version: int = 7,
    identity: str = "",
    check: Check = lambda: None,
) -> WrittenPackage:
    """Write a folder that ``read_package``, coremltools and Core ML read; stored constants go to weight.bin.

    Tensors are read, written and forgotten one after another. A program of several functions has a
    description for each, by name. ``version`` is the specification version: 6 is iOS 15, 7 iOS 16, 8 iOS 17,
    9 iOS 18, 10 iOS 26. The identifiers of the package's items follow from ``identity``, so that equal
    programs become equal files. ``check`` is called before each piece of the weights and may raise to stop.
    The package appears at its path when it is whole: it is written beside it, and removed there if anything
    fails.

    Raises:
        FileExistsError: there is something at the path.
        ValueError: a tensor has another size than it declares.
        OSError: the disk is full.
    """
    layout = layout_of(program)
    model = encode_model(program, description, layout, version=version)
    return write_encoded(path, model, layout, identity=identity, check=check)


def write_packages(
    places: Mapping[str, Path],
    program: Program,
    descriptions: Mapping[str, Description],
    *,
    version: int = 7,
    identity: str = "",
    copy: Copy = shutil.copyfile,
    check: Check = lambda: None,
) -> tuple[WrittenPackage, ...]:
    """Write a package for each of these functions of ``program``, all with one and the same weight.bin.

    It holds the weights of all functions, those of the first in the order that they would have alone.
    ``copy`` brings it from the first package to the others: by a hard link it takes no more room. For the
    rest see :func:`write_package`; what was written before something failed stays.
    """
    layout = layout_of(program)
    written: list[WrittenPackage] = []
    for name, place in places.items():
        check()
        model = encode_model(alone(program, name), descriptions[name], layout, version=version)
        first = written[0] if written else None
        written.append(_write(place, model, layout, identity=identity, check=check, copy=copy, like=first))
    return tuple(written)


def write_pipeline(
    path: str | os.PathLike[str],
    models: Mapping[str, tuple[Program, Description]],
    description: Description,
    *,
    version: int = 7,
    identity: str = "",
    check: Check = lambda: None,
) -> WrittenPackage:
    """Write a package of a pipeline: ``models`` by name, that run in their order and pass values by name.

    They have one weight.bin among them. ``description`` is that of the whole. Source of the layout:
    ``Pipeline`` in Model.proto. For the rest see :func:`write_package`.
    """
    layout = layout_of(*(program for program, _ in models.values()))
    encoded = (encode_model(program, said, layout, version=version) for program, said in models.values())
    model = _pipeline(dict(zip(models, encoded, strict=True)), description, version, "pipeline")
    return write_encoded(path, model, layout, identity=identity, check=check)


def write_model(
    path: str | os.PathLike[str],
    model: Package | Pipeline,
    *,
    identity: str = "",
    check: Check = lambda: None,
) -> WrittenPackage:
    """Write what :func:`sd_mil.read_model` read, or what rewrites made of that, as a package.

    The models of a pipeline have one weight.bin among them. For the rest see :func:`write_package`.
    """
    layout = layout_of(*(package.program for _, package in programs_in(model)))
    return write_encoded(path, _encoded(model, layout), layout, identity=identity, check=check)


def _encoded(model: Package | Pipeline | Suppression, layout: BlobLayout) -> bytes:
    """``Model`` of Model.proto."""
    version = model.specification_version
    if isinstance(model, Package):
        described = model.descriptions or model.description
        return encode_model(model.program, described, layout, version=version)
    if isinstance(model, Suppression):
        said = encode_description(model.description, {}, "")
        return integer(1, version) + field(2, said) + field(_SUPPRESSION, encode_suppression(model))
    models = {name: _encoded(one, layout) for name, one in model.models.items()}
    return _pipeline(models, model.description, version, model.kind)


def _pipeline(
    models: Mapping[str, bytes], description: Description, version: int, kind: PipelineKind
) -> bytes:
    """``Model`` of Model.proto around encoded models; the kinds for classifiers and regressors wrap one."""
    bodies = b"".join(field(1, model) for model in models.values()) + b"".join(
        text(2, name) for name in models
    )
    said = encode_description(description, {}, "")
    inner = bodies if kind == "pipeline" else field(1, bodies)
    encoded = integer(1, version) + field(2, said) + field(_PIPELINES[kind], inner)
    return encoded + description.unknown.get("Model", b"")


def write_encoded(
    path: str | os.PathLike[str],
    model: bytes,
    layout: BlobLayout,
    *,
    identity: str = "",
    check: Check = lambda: None,
) -> WrittenPackage:
    """As :func:`write_package`, of a model that was encoded with ``layout``."""
    return _write(Path(path), model, layout, identity=identity, check=check)


def _write(
    root: Path,
    model: bytes,
    layout: BlobLayout,
    *,
    identity: str,
    check: Check,
    copy: Copy = shutil.copyfile,
    like: WrittenPackage | None = None,
) -> WrittenPackage:
    """Write a package; its weights are those of the package ``like``, where there is one."""
    manifest = f"{json.dumps(_manifest(identity), indent=4)}\n".encode()
    small = {_MODEL: model, "Manifest.json": manifest}
    with appearing(root) as folder:
        (folder / WEIGHTS).parent.mkdir(parents=True)
        for relative, content in small.items():
            (folder / relative).write_bytes(content)
        if like is None:
            weights = layout.write(folder / WEIGHTS, check)
        else:
            copy(like.path / WEIGHTS, folder / WEIGHTS)
            weights = like.sha256[WEIGHTS]
    hashes = {relative: hashlib.sha256(content).hexdigest() for relative, content in small.items()}
    return WrittenPackage(root, {**hashes, WEIGHTS: weights}, package_bytes(small.values(), layout))


def package_bytes(small: Iterable[bytes], layout: BlobLayout) -> int:
    """Of a package with these small files and these weights."""
    return sum(map(len, small)) + layout.size


def _manifest(identity: str) -> dict[str, object]:
    names = ("model.mlmodel", "weights")
    model, weights = (str(uuid.uuid5(uuid.NAMESPACE_URL, f"{identity}/{name}")).upper() for name in names)
    entries = {
        model: _item("model.mlmodel", "CoreML Model Specification"),
        weights: _item("weights", "CoreML Model Weights"),
    }
    return {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": model}


def _item(name: str, description: str) -> dict[str, str]:
    return {"author": _AUTHOR, "description": description, "name": name, "path": f"{_AUTHOR}/{name}"}


def encode_model(
    program: Program,
    description: Description | Mapping[str, Description],
    layout: BlobLayout,
    *,
    version: int = 7,
) -> bytes:
    """``Model`` of Model.proto; constants refer to where ``layout`` has them."""
    encoded = encode_program(program, layout)
    return model_of(encoded, description, default=program.default_function, version=version)


def model_of(
    program: bytes | bytearray,
    description: Description | Mapping[str, Description],
    *,
    default: str,
    version: int,
) -> bytes:
    """``Model`` of Model.proto around an encoded program, whose default function is called ``default``."""
    functions = {} if isinstance(description, Description) else description
    main = description if isinstance(description, Description) else description[default]
    described = encode_description(main, functions, default)
    encoded = integer(1, version) + field(2, described) + field(502, bytes(program))
    return encoded + main.unknown.get("Model", b"")


def layout_of(*programs: Program) -> BlobLayout:
    """Where each stored constant of the programs will lie in their weight file."""
    functions = (function for program in programs for function in program.functions.values())
    bodies = (body for one in functions for body in (one.body, *one.specializations.values()))
    constants = (constant for body in bodies for constant in constants_in(body))
    return BlobLayout.of(constant for constant in constants if constant.stored)
