"""The folder: Manifest.json, the model file it names, and the files that the model names."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.program import Package
from sd_mil.reader.blobs import WeightFiles
from sd_mil.reader.description import default_function, read_description
from sd_mil.reader.graph import read_program
from sd_mil.reader.scope import check_scopes
from sd_mil.reader.wire import Message

_MODEL_PATH = "@model_path/"
_ML_PROGRAM = 502
#: The other kinds of ``Model.Type`` that a user is likely to hold.
_OTHER_MODELS = {
    200: "a pipeline",
    201: "a pipeline",
    202: "a pipeline",
    303: "a neural network",
    403: "a neural network",
    500: "a neural network",
    555: "a custom model",
    556: "a linked model",
    3000: "a serialized model",
}


def read_package(path: str | os.PathLike[str]) -> Package:
    """Read an ``.mlpackage`` folder; weights are mapped, not read.

    Names inside the package may not lead out of it. Files may be symbolic links, as in the caches of model
    hubs.

    Raises:
        PackageError: missing, malformed, truncated or self-contradictory.
        UnsupportedModelError: not an ML Program, or one of a kind that is not run here.
    """
    root = Path(path)
    try:
        return _read(root)
    except UnsupportedModelError as error:
        raise type(error)(f"{root}: {error}") from error
    except PackageError as error:
        raise PackageError(f"{root}: {error}") from error
    except OSError as error:
        raise PackageError(f"{root}: expected a readable package, got {error}") from error


def _read(root: Path) -> Package:
    _check_folder(root)
    model_file = _model_file(root)
    weights = WeightFiles(lambda name: _weight_file(root, model_file, name))
    model = Message(model_file.read_bytes())
    description = model.message(2) or Message(b"")
    program = read_program(_ml_program(model), default_function(description), weights)
    check_scopes(program)
    return Package(
        path=str(root),
        specification_version=model.signed(1),
        description=read_description(description, program.main),
        program=program,
        weight_bytes=weights.total_bytes,
    )


def _check_folder(root: Path) -> None:
    if not root.exists():
        raise PackageError("expected an .mlpackage folder, got nothing at this path")
    if (root / "coremldata.bin").exists():
        raise UnsupportedModelError("expected an .mlpackage, got a compiled model (.mlmodelc)")
    if not root.is_dir():
        raise PackageError("expected an .mlpackage folder, got a file")


def _model_file(root: Path) -> Path:
    """Follow the manifest to the root model."""
    manifest = _manifest(root)
    identifier = manifest.get("rootModelIdentifier")
    entries = manifest.get("itemInfoEntries")
    entry = entries.get(identifier) if isinstance(entries, dict) and isinstance(identifier, str) else None
    name = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise PackageError("expected Manifest.json to lead from rootModelIdentifier to a path, got no path")
    return _inside(root / "Data", name, "Manifest.json")


def _manifest(root: Path) -> dict[str, Any]:
    file = _inside(root, "Manifest.json", "an .mlpackage")
    try:
        manifest = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PackageError(f"expected JSON in Manifest.json, got {error}") from None
    if not isinstance(manifest, dict):
        raise PackageError(f"expected an object in Manifest.json, got {type(manifest).__name__}")
    return manifest


def _weight_file(root: Path, model_file: Path, name: str) -> Path:
    if not name.startswith(_MODEL_PATH):
        raise PackageError(f"expected a weight file under {_MODEL_PATH!r}, got {name!r}")
    folder = model_file.parent.relative_to(root).as_posix()
    return _inside(root, f"{folder}/{name.removeprefix(_MODEL_PATH)}", "the model")


def _inside(folder: Path, name: str, source: str) -> Path:
    """The file of that name in the folder, where the name is relative and has no way up."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name or "\0" in name:
        raise PackageError(f"expected {source} to name a file inside the package, got {name!r}")
    file = folder / relative
    if not file.is_file():
        raise PackageError(f"expected the file {name!r} that {source} names, got no such file")
    return file


def _ml_program(model: Message) -> Message:
    program = model.message(_ML_PROGRAM)
    if program is not None:
        return program
    found = next((name for number, name in _OTHER_MODELS.items() if number in model), None)
    if found is None:
        kinds = [number for number in model.numbers() if number >= min(_OTHER_MODELS)]
        found = f"model type {kinds[0]}" if kinds else "no model"
    raise UnsupportedModelError(
        f"expected an ML Program (the format of .mlpackage since iOS 15), got {found}"
    )
