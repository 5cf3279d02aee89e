"""From a program to an ``.mlpackage``: the inverse of the reader.

What is written is what is given: types, names and order are not checked, so that readers can be tested with
programs that lie. :func:`sd_mil.read_package` checks.

Source of the layout: coremltools' modelpackage/src/ModelPackage.cpp.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sd_mil.format.appearing import appearing
from sd_mil.format.blob_writer import BlobLayout, Check
from sd_mil.format.description_writer import encode_description
from sd_mil.format.encoding import field, integer
from sd_mil.format.graph_writer import encode_program
from sd_mil.ir.ports import Description
from sd_mil.ir.program import Program
from sd_mil.ir.uses import constants_in

_AUTHOR = "com.apple.CoreML"
_MODEL = f"Data/{_AUTHOR}/model.mlmodel"
_WEIGHTS = f"Data/{_AUTHOR}/weights/weight.bin"


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


def write_encoded(
    path: str | os.PathLike[str],
    model: bytes,
    layout: BlobLayout,
    *,
    identity: str = "",
    check: Check = lambda: None,
) -> WrittenPackage:
    """As :func:`write_package`, of a model that was encoded with ``layout``."""
    root = Path(path)
    manifest = f"{json.dumps(_manifest(identity), indent=4)}\n".encode()
    small = {_MODEL: model, "Manifest.json": manifest}
    with appearing(root) as folder:
        (folder / _WEIGHTS).parent.mkdir(parents=True)
        for relative, content in small.items():
            (folder / relative).write_bytes(content)
        weights = layout.write(folder / _WEIGHTS, check)
    hashes = {relative: hashlib.sha256(content).hexdigest() for relative, content in small.items()}
    return WrittenPackage(root, {**hashes, _WEIGHTS: weights}, package_bytes(small.values(), layout))


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
