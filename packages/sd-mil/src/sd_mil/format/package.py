"""From a path to a model: ``.mlpackage``, ``.mlmodelc`` or ``.mlmodel``."""

from __future__ import annotations

import os
from pathlib import Path

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.blobs import WeightFiles
from sd_mil.format.compiled import is_compiled, read_compiled
from sd_mil.format.files import manifest_model, message_bytes, weight_locator
from sd_mil.format.specification import read_specification
from sd_mil.format.wire import Message
from sd_mil.ir.program import Package, Pipeline


def read_package(path: str | os.PathLike[str]) -> Package:
    """Read an ML Program; weights are mapped, not read.

    The path is that of an ``.mlpackage`` folder, of a compiled ``.mlmodelc`` folder, or of a bare
    ``.mlmodel`` file. Names inside the model may not lead out of its folder. Files may be symbolic links, as
    in the caches of model hubs.

    Raises:
        PackageError: missing, malformed, truncated or self-contradictory.
        UnsupportedModelError: not an ML Program, or one of a kind that is not run here.
    """
    model = read_model(path)
    if isinstance(model, Pipeline):
        raise UnsupportedModelError(f"{path}: expected an ML Program, got a pipeline; read_model reads it")
    return model


def read_model(path: str | os.PathLike[str]) -> Package | Pipeline:
    """Read an ML Program, or a pipeline of ML Programs: as :func:`read_package`.

    Raises:
        PackageError: missing, malformed, truncated or self-contradictory.
        UnsupportedModelError: of a kind that is not run here.
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
    except (MemoryError, RecursionError) as error:
        much = "memory" if isinstance(error, MemoryError) else "nesting"
        raise PackageError(f"{root}: expected a model that can be read, got one of too much {much}") from None


def _read(root: Path) -> Package | Pipeline:
    if not root.exists():
        raise PackageError("expected an .mlpackage, .mlmodelc or .mlmodel, got nothing at this path")
    if root.is_file():
        return _read_file(root, str(root))
    if is_compiled(root):
        return read_compiled(root)
    return _read_file(manifest_model(root), str(root))


def _read_file(file: Path, path: str) -> Package | Pipeline:
    weights = WeightFiles(weight_locator(file.parent))
    return read_specification(Message(message_bytes(file)), path, weights)
