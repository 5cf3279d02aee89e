"""A package compiled: written beside its path and renamed, weights copied as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.appearing import appearing
from sd_mil.format.compiled import is_compiled
from sd_mil.format.compiling.data import analytics_data
from sd_mil.format.compiling.metadata import metadata_json
from sd_mil.format.compiling.parts import pipeline_files, program_files, programs_only
from sd_mil.format.files import MODEL_PATH, inside, manifest_model, message_bytes
from sd_mil.format.package import read_model
from sd_mil.format.wire import Message
from sd_mil.ir.program import Package, Pipeline
from sd_mil.ir.uses import constants_in

_NOBODY: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """A compiled model on the disk, and the bytes of its files."""

    path: Path
    bytes: int


def compile_model(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    build_info: Mapping[str, str] = _NOBODY,
    copy: Callable[[Path, Path], object] = shutil.copyfile,
    check: Callable[[], None] = lambda: None,
) -> CompiledModel:
    """Write the ``.mlmodelc`` that Core ML's own compiler makes of an ML Program, on any machine.

    Or of a pipeline of ML Programs. ``source`` is an ``.mlpackage`` or ``.mlmodel``. ``build_info`` is what
    the compiler says of itself in ``model.mil`` (Apple's: ``coremlc-component-MIL`` and ``coremlc-version``);
    by default the version of sd-mil. ``copy`` brings a weight file to where it shall be; it may make a hard
    link. ``check`` is called before each file and may raise to stop. Programs are held to Apple's compiler
    byte for byte (``model.mil``, weights, analytics) or as messages and JSON (the others) on models at hand,
    pipelines to what public compiled ones show; that a device loads the result has not been seen.

    Raises:
        FileExistsError: there is something at ``out``.
        PackageError: missing, malformed, truncated or self-contradictory.
        UnsupportedModelError: neither an ML Program nor a pipeline of such alone, or compiled already.
        OSError: the disk is full.
    """
    root, target = Path(source), Path(out)
    if root.is_dir() and is_compiled(root):
        raise UnsupportedModelError(f"{root}: expected a package, got a model that is compiled already")
    read = read_model(root)
    file = manifest_model(root) if root.is_dir() else root
    name = target.name.removesuffix(".mlmodelc")
    small, weights = _files(read, bytes(message_bytes(file)), name, build_info or _own_build_info())
    with appearing(target) as folder:
        for name, content in small.items():
            check()
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        for name in sorted(weights):
            check()
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy(inside(file.parent, name, "the model"), folder / name)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return CompiledModel(target, size)


def _files(
    model: Package | Pipeline, encoded: bytes, name: str, build_info: Mapping[str, str]
) -> tuple[dict[str, bytes], set[str]]:
    """The small files, and the names of the weight files."""
    if isinstance(model, Package):
        files = program_files(model, Message(encoded), build_info)
        files["metadata.json"] = metadata_json(model, name).encode()
        files["analytics/coremldata.bin"] = analytics_data(encoded)
        return files, _weight_files(model)
    models = [programs_only(part, each) for part, each in model.models.items()]
    weights = set().union(*map(_weight_files, models))
    return pipeline_files(model, models, encoded, name, build_info), weights


def _own_build_info() -> Mapping[str, str]:
    from importlib.metadata import version  # brings email and socket

    return {"sd-mil-version": version("sd-mil")}


def _weight_files(package: Package) -> set[str]:
    """The files that constants refer to, by their paths beside the model."""
    bodies = [
        body
        for function in package.program.functions.values()
        for body in (function.body, *function.specializations.values())
    ]
    blobs = (constant.blob for body in bodies for constant in constants_in(body))
    names = {blob.file for blob in blobs if blob is not None}
    for name in names:
        if not name.startswith(MODEL_PATH):
            raise PackageError(f"expected a weight file under {MODEL_PATH!r}, got {name!r}")
    return {name.removeprefix(MODEL_PATH) for name in names}
