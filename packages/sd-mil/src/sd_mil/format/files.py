"""Files of a model: names that come out of it lead to files inside its folder and nowhere else.

None is read before its size is known, and what is obviously something else is called by its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path, PurePosixPath
from typing import Any

from sd_mil.errors import PackageError
from sd_mil.format.recognition import recognise_file

#: protobuf, and with it Core ML, reads no message of 2 GiB.
MAX_MESSAGE_BYTES = (1 << 31) - 1
#: Longer than any real program by far; reading takes some fifty times as much memory.
MAX_TEXT_BYTES = 1 << 26
#: Real ones have a thousandth of it.
_MAX_MANIFEST_BYTES = 1 << 20
#: What is longer, because it has weights inside, is mapped.
_READ_WHOLE_BYTES = 1 << 26
#: What names of weight files begin with: the folder of the model.
MODEL_PATH = "@model_path/"


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


def message_bytes(file: Path) -> bytes | mmap:
    """The bytes of a protobuf message, in memory or mapped.

    Raises:
        PackageError: the file is larger than such messages are, or is something else.
    """
    size = _checked(file, MAX_MESSAGE_BYTES)
    if size <= _READ_WHOLE_BYTES:
        return file.read_bytes()
    with file.open("rb") as opened:
        return mmap(opened.fileno(), 0, access=ACCESS_READ)


def text_bytes(file: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The bytes of a text.

    Raises:
        PackageError: the file is larger than the limit.
    """
    _checked(file, limit, text=True)
    return file.read_bytes()


def refuse_foreign(file: Path, name: str, *, text: bool = False) -> None:
    """Say what a file is that cannot be read, where that is known; ``text`` where plain text is expected.

    Raises:
        PackageError: it is a Git LFS pointer, a page, an archive, or a model of another framework.
    """
    kind = recognise_file(file, text=text)
    if kind is not None:
        raise PackageError(f"expected a part of a Core ML model in {name}, got {kind}")


def _checked(file: Path, limit: int, *, text: bool = False) -> int:
    refuse_foreign(file, file.name, text=text)
    size = file.stat().st_size
    if size > limit:
        raise PackageError(f"expected at most {limit} bytes in {file.name}, got {size}")
    return size


def weight_locator(folder: Path, *, shared: Path | None = None) -> Callable[[str], Path]:
    """What finds ``@model_path/...`` in ``folder``, or else in ``shared``, which it lies in.

    The models of a compiled pipeline say ``@model_path/../weights/weight.bin``; a name may lead up as far as
    ``shared``, and nowhere without it.
    """

    def locate(name: str) -> Path:
        if not name.startswith(MODEL_PATH):
            raise PackageError(f"expected a weight file under {MODEL_PATH!r}, got {name!r}")
        relative = name.removeprefix(MODEL_PATH)
        if shared is not None and relative.startswith("../"):
            return _above(folder, shared, relative)
        try:
            return inside(folder, relative, "the model")
        except PackageError:
            if shared is None:
                raise
            return inside(shared, relative, "the model")

    return locate


def _above(folder: Path, root: Path, relative: str) -> Path:
    """The file of a name that leads up before it leads down: in the root, which no such name leaves."""
    down = list(folder.relative_to(root).parts)
    ups = relative
    while ups.startswith("../") and down:
        down.pop()
        ups = ups.removeprefix("../")
    return inside(root, "/".join([*down, ups]), "the model")


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
        manifest = json.loads(text_bytes(file, _MAX_MANIFEST_BYTES))
    except (ValueError, RecursionError) as error:
        raise PackageError(f"expected JSON in Manifest.json, got {error}") from None
    if not isinstance(manifest, dict):
        raise PackageError(f"expected an object in Manifest.json, got {type(manifest).__name__}")
    return manifest
