"""Where a model lies on the disk, and how it is saved: its texts as they stand, all else as it was."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sd_mil.errors import MissingEngineError, PackageError, UnsupportedModelError
from sd_mil.format import layout_of, write_package
from sd_mil.format.description_writer import encode_description
from sd_mil.format.encoding import field
from sd_mil.format.files import manifest_model, message_bytes
from sd_mil.format.wire import Message
from sd_mil.format.writer import appearing, write_encoded
from sd_mil.ir.program import Package, Pipeline, Program

#: The field of ``Model`` that says its ports and metadata.
_DESCRIPTION = 2
PACKAGE, MODEL = ".mlpackage", ".mlmodel"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """An ``.mlpackage`` folder, or an ``.mlmodel`` file that has everything inside."""

    path: Path
    #: Where the path lies, if that goes with the model.
    temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def is_package(self) -> bool:
        """Whether it is a folder."""
        return self.path.is_dir()

    @property
    def specification(self) -> Path:
        """The file that has the protobuf message."""
        return manifest_model(self.path) if self.is_package else self.path

    @property
    def weights(self) -> Path | None:
        """The folder of its weights, if it has one."""
        folder = self.specification.parent / "weights"
        return folder if self.is_package and folder.is_dir() else None

    def encoded(self, before: Package | Pipeline, after: Package | Pipeline) -> bytes:
        """The message of the file, where the description is that of ``after`` if it was changed."""
        data = message_bytes(self.specification)
        if after is before:
            return bytes(data)
        functions = {} if isinstance(after, Pipeline) else after.descriptions
        default = "" if isinstance(after, Pipeline) else after.program.default_function
        described = encode_description(after.description, functions, default)
        return Message(data).unknown(frozenset({_DESCRIPTION})) + field(_DESCRIPTION, described)


def files_at(path: str | os.PathLike[str], model: Package | Pipeline) -> ModelFiles | None:
    """Those of the model that was read from the path; None if it has to be written to have its own.

    That is so of compiled models, and of an ``.mlmodel`` whose weights lie beside it.
    """
    place = Path(path)
    if (place / "Manifest.json").is_file() or (place.is_file() and not model.weight_bytes):
        return ModelFiles(place)
    return None


def files_of(model: Package | Pipeline) -> ModelFiles:
    """The files of a model that is in memory: a program is written to a temporary package.

    Raises:
        UnsupportedModelError: a pipeline that was read from a compiled model.
        OSError: the disk is full.
    """
    if isinstance(model, Pipeline):
        found = files_at(model.path, model)
        if found is None:
            raise UnsupportedModelError(f"expected a pipeline from an .mlpackage, got {model.path!r}")
        return found
    folder = _temporary()
    written = write_package(
        Path(folder.name) / f"model{PACKAGE}",
        model.program,
        model.descriptions or model.description,
        version=model.specification_version,
    )
    return ModelFiles(written.path, folder)


def files_of_specification(specification: Any, weights: str | os.PathLike[str] | None) -> ModelFiles:
    """A temporary package of a ``Model_pb2.Model`` of coremltools, with the weights of a folder.

    Raises:
        PackageError: the weights are no folder.
        OSError: the disk is full.
    """
    folder = _temporary()
    path = Path(folder.name) / f"model{PACKAGE}"
    write_encoded(path, specification.SerializeToString(), layout_of(Program({})))
    files = ModelFiles(path, folder)
    target = files.specification.parent / "weights"
    (target / "weight.bin").unlink()  # it has none; what the message says of them is then found missing
    if weights is not None:
        source = Path(weights).expanduser()
        if not source.is_dir():
            raise PackageError(f"expected weights_dir to be a folder, got {os.fspath(weights)!r}")
        shutil.copytree(source, target, copy_function=_linked, dirs_exist_ok=True)
    return files


def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sd-mil-", ignore_cleanup_errors=True)


def _linked(source: str, target: str) -> None:
    """A second name of the file; a copy on another disk, or where there are no second names."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def saved(files: ModelFiles, message: bytes, path: str | os.PathLike[str]) -> Path:
    """Copy a model to ``path``, in place of a model that is there; its message is ``message``.

    Raises:
        PackageError: the path ends in something else than the kind of the model, or is taken by what is none.
        OSError: the disk is full.
    """
    target = _target(Path(path).expanduser(), PACKAGE if files.is_package else MODEL)
    with _replacing(target) as new:
        if not files.is_package:
            new.write_bytes(message)
            return target
        with appearing(new) as folder:
            shutil.copytree(files.path, folder, dirs_exist_ok=True)
            inside = folder / files.specification.relative_to(files.path)
            inside.unlink()  # it may be a second name of another package's
            inside.write_bytes(message)
    return target


def _target(path: Path, suffix: str) -> Path:
    if not path.suffix:
        return path.with_name(path.name + suffix)
    if path.suffix != suffix:
        raise PackageError(f"expected a path that ends in {suffix} for this model, got {str(path)!r}")
    return path


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A name beside ``target``, whose file or folder takes its place at the end.

    Raises:
        PackageError: there is a folder that is no package.
    """
    if target.is_dir() and not (target / "Manifest.json").is_file():
        raise PackageError(f"expected a package to replace, got the folder {str(target)!r}")
    new, old = (target.with_name(f".{uuid.uuid4().hex[:12]}.{name}") for name in ("new", "old"))
    try:
        yield new
        if os.path.lexists(target):
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
    finally:
        for left in (new, old):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink(missing_ok=True)


def parsed(message: bytes) -> Any:
    """The message as ``Model_pb2.Model`` of coremltools.

    Raises:
        MissingEngineError: coremltools is not installed.
    """
    try:
        module: Any = importlib.import_module("coremltools.proto.Model_pb2")
    except ModuleNotFoundError as error:
        raise MissingEngineError(
            "get_spec gives coremltools' own message and needs it: pip install coremltools"
        ) from error
    return module.Model.FromString(message)
