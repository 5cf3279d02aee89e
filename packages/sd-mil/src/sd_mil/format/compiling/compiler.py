"""A package compiled: written beside its path and renamed, weights copied as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.compiled import is_compiled
from sd_mil.format.compiling.data import analytics_data, coreml_data
from sd_mil.format.compiling.metadata import metadata_json
from sd_mil.format.compiling.text import compiled_text
from sd_mil.format.files import inside, manifest_model, message_bytes
from sd_mil.format.package import read_package
from sd_mil.format.wire import Message
from sd_mil.format.writer import appearing
from sd_mil.ir.program import Package
from sd_mil.ir.uses import constants_in

_DESCRIPTION, _METADATA, _FUNCTIONS = 2, 100, 20
_MODEL_PATH: Final = "@model_path/"
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
    check: Callable[[], None] = lambda: None,
) -> CompiledModel:
    """Write the ``.mlmodelc`` that Core ML's own compiler makes of an ML Program, on any machine.

    ``source`` is an ``.mlpackage`` or ``.mlmodel``. ``build_info`` is what the compiler says of itself in
    ``model.mil`` (Apple's: ``coremlc-component-MIL`` and ``coremlc-version``); by default the version of
    sd-mil. ``check`` is called before each file and may raise to stop. Held to Apple's compiler byte for byte
    (``model.mil``, weights, analytics) or as messages and JSON (the others) on models at hand; that a device
    loads the result has not been seen.

    Raises:
        FileExistsError: there is something at ``out``.
        PackageError: missing, malformed, truncated or self-contradictory.
        UnsupportedModelError: not an ML Program, or compiled already.
        OSError: the disk is full.
    """
    root, target = Path(source), Path(out)
    if root.is_dir() and is_compiled(root):
        raise UnsupportedModelError(f"{root}: expected a package, got a model that is compiled already")
    package = read_package(root)
    file = manifest_model(root) if root.is_dir() else root
    model = message_bytes(file)
    description = Message(model).message(_DESCRIPTION) or Message(b"")
    small = {
        "model.mil": "".join(_text(package, build_info)).encode(),
        "metadata.json": metadata_json(package, target.name.removesuffix(".mlmodelc")).encode(),
        "coremldata.bin": coreml_data(
            Message(model).payload(_DESCRIPTION),
            package.specification_version,
            len(description.messages(_FUNCTIONS)),
            has_metadata=_METADATA in description,
        ),
        "analytics/coremldata.bin": analytics_data(bytes(model)),
    }
    with appearing(target) as folder:
        for name, content in small.items():
            check()
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        for name in sorted(_weight_files(package)):
            check()
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(inside(file.parent, name, "the model"), folder / name)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return CompiledModel(target, size)


def _text(package: Package, build_info: Mapping[str, str]) -> str:
    descriptions = package.descriptions or {package.program.default_function: package.description}
    said = build_info or {"sd-mil-version": version("sd-mil")}
    return "".join(compiled_text(package.program, descriptions, said))


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
        if not name.startswith(_MODEL_PATH):
            raise PackageError(f"expected a weight file under {_MODEL_PATH!r}, got {name!r}")
    return {name.removeprefix(_MODEL_PATH) for name in names}
