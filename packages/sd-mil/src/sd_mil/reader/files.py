"""Files of a model: names that come out of it lead to files inside its folder and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from sd_mil.errors import PackageError

_MODEL_PATH = "@model_path/"


def inside(folder: Path, name: str, source: str) -> Path:
    """The file of that name in the folder, where the name is relative and has no way up.

    It may be a symbolic link, as in the caches of model hubs.

    Raises:
        PackageError: the name leads out, or there is no such file.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name or "\0" in name:
        raise PackageError(f"expected {source} to name a file inside the package, got {name!r}")
    file = folder / relative
    if not file.is_file():
        raise PackageError(f"expected the file {name!r} that {source} names, got no such file")
    return file


def weight_locator(folder: Path, *, shared: Path | None = None) -> Callable[[str], Path]:
    """What finds ``@model_path/...`` in ``folder``, or else in ``shared``, which it lies in."""

    def locate(name: str) -> Path:
        if not name.startswith(_MODEL_PATH):
            raise PackageError(f"expected a weight file under {_MODEL_PATH!r}, got {name!r}")
        relative = name.removeprefix(_MODEL_PATH)
        try:
            return inside(folder, relative, "the model")
        except PackageError:
            if shared is None:
                raise
            return inside(shared, relative, "the model")

    return locate


def manifest_model(root: Path) -> Path:
    """The root model that Manifest.json leads to.

    Raises:
        PackageError: it leads nowhere.
    """
    manifest = _manifest(root)
    identifier = manifest.get("rootModelIdentifier")
    entries = manifest.get("itemInfoEntries")
    entry = entries.get(identifier) if isinstance(entries, dict) and isinstance(identifier, str) else None
    name = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise PackageError("expected Manifest.json to lead from rootModelIdentifier to a path, got no path")
    return inside(root / "Data", name, "Manifest.json")


def _manifest(root: Path) -> dict[str, Any]:
    file = inside(root, "Manifest.json", "an .mlpackage")
    try:
        manifest = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PackageError(f"expected JSON in Manifest.json, got {error}") from None
    if not isinstance(manifest, dict):
        raise PackageError(f"expected an object in Manifest.json, got {type(manifest).__name__}")
    return manifest
