"""The small files of a compiled ML Program, and of a compiled pipeline with those of its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from sd_mil.errors import UnsupportedModelError
from sd_mil.format.compiling.data import coreml_data, names_data, pipeline_analytics_data, pipeline_data
from sd_mil.format.compiling.metadata import pipeline_metadata_json
from sd_mil.format.compiling.text import compiled_text
from sd_mil.format.files import MODEL_PATH
from sd_mil.format.wire import Message
from sd_mil.ir.program import Blob, Package, Pipeline, Suppression

_DESCRIPTION, _METADATA, _FUNCTIONS, _PIPELINE, _MODELS = 2, 100, 20, 202, 1
#: From the folder of a pipeline's model to the weights, which lie once beside all of them.
_UP: Final = f"{MODEL_PATH}../"


def program_files(
    package: Package, model: Message, build_info: Mapping[str, str], *, up: bool = False
) -> dict[str, bytes]:
    """``model.mil`` and ``coremldata.bin``; ``up`` where the weights lie one folder above.

    Raises:
        UnsupportedModelError: a value without a text form.
    """
    descriptions = package.descriptions or {package.program.default_function: package.description}
    lines = compiled_text(package.program, descriptions, build_info, blob=_above if up else lambda blob: blob)
    description = _description(model)
    return {
        "model.mil": "".join(lines).encode(),
        "coremldata.bin": coreml_data(
            model.payload(_DESCRIPTION),
            package.specification_version,
            len(description.messages(_FUNCTIONS)),
            has_metadata=_METADATA in description,
        ),
    }


def _above(blob: Blob) -> Blob:
    return replace(blob, file=_UP + blob.file.removeprefix(MODEL_PATH))


def _description(model: Message) -> Message:
    return model.message(_DESCRIPTION) or Message(b"")


def programs_only(name: str, model: Package | Pipeline | Suppression) -> Package:
    """A model of a pipeline.

    Raises:
        UnsupportedModelError: it is no ML Program.
    """
    if isinstance(model, Package):
        return model
    kind = "a pipeline" if isinstance(model, Pipeline) else "a nonMaximumSuppression"
    raise UnsupportedModelError(
        f"expected a pipeline of ML Programs to compile, got {kind} as its model {name!r}: "
        "compile it with Xcode on a Mac"
    )


def pipeline_files(
    pipeline: Pipeline,
    models: Sequence[Package],
    encoded: bytes,
    name: str,
    build_info: Mapping[str, str],
) -> dict[str, bytes]:
    """All files but the weights of a pipeline of ML Programs, by their paths.

    Raises:
        UnsupportedModelError: a pipeline that is a classifier or a regressor, or a value without a text form.
    """
    model = Message(encoded)
    body = model.message(_PIPELINE)
    if body is None:
        raise UnsupportedModelError(
            "expected a plain pipeline to compile, got a classifier or regressor of one: "
            "compile it with Xcode on a Mac"
        )
    files = {
        "metadata.json": pipeline_metadata_json(pipeline, models, name).encode(),
        "coremldata.bin": pipeline_data(
            model.payload(_DESCRIPTION),
            pipeline.specification_version,
            [one.specification_version for one in models],
            has_metadata=_METADATA in _description(model),
        ),
        "modelNames/coremldata.bin": names_data(list(pipeline.models)),
        "analytics/coremldata.bin": pipeline_analytics_data(encoded, len(models)),
    }
    for index, (one, message) in enumerate(zip(models, body.messages(_MODELS), strict=True)):
        parts = program_files(one, message, build_info, up=True)
        files |= {f"model{index}/{part}": content for part, content in parts.items()}
    return files
