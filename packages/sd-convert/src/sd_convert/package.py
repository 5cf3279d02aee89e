"""The files of an ``.mlpackage``: list of items, model message, weights.

Source of the layout: coremltools' modelpackage/src/ModelPackage.cpp.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .blobs import Layout, Tensors, write_blobs
from .blueprint import Blueprint, tensor_hash
from .component import Component, PortSpec
from .coreml import import_coremltools

if TYPE_CHECKING:
    from .lowering import Lowered

_AUTHOR: Final = "com.apple.CoreML"

#: numpy's name of a port's dtype -> Core ML's.
_ARRAY_DTYPES: Final = {"float16": "FLOAT16", "float32": "FLOAT32", "int32": "INT32"}


def draw_blueprint(component: Component, lowered: Lowered, *, specification: int) -> Blueprint:
    """The package of a program, with the metadata of its component; weights are not read."""
    from .serialise import program_message

    model, layout = _describe(component, specification), Layout()
    model.mlProgram.CopyFrom(program_message(lowered, layout, specification=specification))
    operations = lowered.program.functions["main"].operations
    return Blueprint(
        name=component.name,
        inputs=component.inputs,
        outputs=component.outputs,
        model=model.SerializeToString(deterministic=True),
        blobs=tuple(layout.blobs),
        inlined={name: tensor_hash(component.weights, name) for name in sorted(lowered.inlined)},
        operations=dict(Counter(op.op_type for op in operations if op.op_type != "const").most_common()),
    )


def write_package(
    blueprint: Blueprint, tensors: Tensors, path: Path, *, check: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Create the package ``path``; read the tensors once, in the order in which they are written.

    ``check`` is called before each piece, and may raise to stop. Returns the sha256 of each file, by its
    path in the package. If anything goes wrong, what was written is removed.

    Raises: see :func:`sd_convert.blobs.write_blobs`.
    """
    folder = path / "Data" / _AUTHOR
    manifest = json.dumps(_manifest(blueprint.name), indent=4) + "\n"
    small = {f"Data/{_AUTHOR}/model.mlmodel": blueprint.model, "Manifest.json": manifest.encode()}
    try:
        (folder / "weights").mkdir(parents=True)
        for relative, content in small.items():
            (path / relative).write_bytes(content)
        weights = write_blobs(folder / "weights" / "weight.bin", blueprint.blobs, tensors, check=check)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    hashes = {relative: hashlib.sha256(content).hexdigest() for relative, content in small.items()}
    return {**hashes, f"Data/{_AUTHOR}/weights/weight.bin": weights}


def _manifest(name: str) -> dict[str, Any]:
    """The list of items; identifiers come from the names, so that equal components become equal files."""
    model, weights = (
        str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{item}")).upper() for item in ("model.mlmodel", "weights")
    )
    return {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            model: _item("CoreML Model Specification", "model.mlmodel", f"{_AUTHOR}/model.mlmodel"),
            weights: _item("CoreML Model Weights", "weights", f"{_AUTHOR}/weights"),
        },
        "rootModelIdentifier": model,
    }


def _item(description: str, name: str, path: str) -> dict[str, str]:
    return {"author": _AUTHOR, "description": description, "name": name, "path": path}


def _describe(component: Component, specification: int) -> Any:
    """The ``Model`` message without its program: version, ports, metadata."""
    coremltools = import_coremltools()
    model = coremltools.proto.Model_pb2.Model(specificationVersion=specification)
    description = model.description
    for ports, features in ((component.inputs, description.input), (component.outputs, description.output)):
        for port in ports:
            _describe_port(features.add(), port)
    metadata = description.metadata
    metadata.shortDescription = component.short_description
    metadata.versionString = component.version
    metadata.author = component.author
    metadata.license = component.license
    metadata.userDefined.update(_tools(coremltools.__version__))
    metadata.userDefined.update(component.user_defined)
    return model


def _tools(coremltools_version: str) -> dict[str, str]:
    """The keys that coremltools itself writes into every package it converts."""
    facts = {
        "version": coremltools_version,
        "source": f"torch=={version('torch')}",
        "source_dialect": "TorchExport::ATEN",
        "conversion_date": conversion_date(),
    }
    return {f"com.github.apple.coremltools.{name}": fact for name, fact in facts.items()}


def conversion_date() -> str:
    """Today in UTC, ``2026-01-31``; the day of ``SOURCE_DATE_EPOCH`` where that is set.

    Source: https://reproducible-builds.org/specs/source-date-epoch
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.date().isoformat()


def _describe_port(feature: Any, port: PortSpec) -> None:
    feature.name, feature.shortDescription = port.name, port.description
    array = feature.type.multiArrayType
    array.shape.extend(port.shape)
    array.dataType = array.ArrayDataType.Value(_ARRAY_DTYPES[port.dtype])
