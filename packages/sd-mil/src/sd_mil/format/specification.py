"""``Model`` of Model.proto: an ML Program, or a pipeline of models."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sd_mil.errors import PackageError, SdMilError, UnsupportedModelError
from sd_mil.format.description import default_function, read_descriptions, read_model_description
from sd_mil.format.graph import read_program
from sd_mil.format.scope import check_scopes
from sd_mil.format.suppression import read_suppression
from sd_mil.format.weights import WeightStore
from sd_mil.format.wire import Message
from sd_mil.ir.program import Package, Pipeline, PipelineKind, Suppression

_ML_PROGRAM = 502
#: The fields that are read of an ML Program's ``Model``.
_MODEL = frozenset({1, 2, _ML_PROGRAM})
_SUPPRESSION = 610
#: Where the ``Pipeline`` is: the kinds for classifiers and regressors wrap one.
_PIPELINES = {200: 1, 201: 1, 202: None}
_KINDS: Mapping[int, PipelineKind] = MappingProxyType({200: "classifier", 201: "regressor", 202: "pipeline"})
_MAX_MODELS = 256
#: The other kinds of ``Model.Type`` that a user is likely to hold.
_OTHER_MODELS = {
    300: "a generalized linear model",
    301: "a support vector machine",
    302: "a tree ensemble",
    303: "a neural network",
    304: "a Bayesian regressor",
    400: "a generalized linear model",
    401: "a support vector machine",
    402: "a tree ensemble",
    403: "a neural network",
    404: "a nearest neighbours classifier",
    500: "a neural network",
    501: "an item recommender",
    555: "a custom model",
    556: "a linked model",
    610: "a nonMaximumSuppression outside a pipeline",
    2000: "a text classifier",
    2001: "a word tagger",
    2002: "a vision feature print",
    3000: "a serialized model",
}


def read_specification(model: Message, path: str, weights: WeightStore) -> Package | Pipeline:
    """The model of a ``model.mlmodel`` file.

    Raises:
        PackageError: malformed or self-contradictory.
        UnsupportedModelError: neither an ML Program nor a pipeline of these.
    """
    read = _pipeline(model, path, weights)
    if read is not None:
        return read
    description = model.message(2) or Message(b"")
    program = read_program(_ml_program(model), default_function(description), weights)
    check_scopes(program)
    described, by_function = read_descriptions(description, program, model.unknown(_MODEL))
    return Package(
        path=path,
        specification_version=model.signed(1),
        description=described,
        program=program,
        weight_bytes=weights.total_bytes,
        descriptions=by_function,
    )


def _pipeline(model: Message, path: str, weights: WeightStore) -> Pipeline | None:
    number = next((number for number in _PIPELINES if number in model), None)
    if number is None:
        return None
    pipeline = model.message(number) or Message(b"")
    wrapped = _PIPELINES[number]
    if wrapped is not None:
        pipeline = pipeline.message(wrapped) or Message(b"")
    bodies = pipeline.messages(1)
    if not 0 < len(bodies) <= _MAX_MODELS:
        raise PackageError(f"expected 1 to {_MAX_MODELS} models in the pipeline, got {len(bodies)}")
    names = _names(pipeline.texts(2), len(bodies))
    models = {
        name: _part(body, f"model {index} of {len(bodies)}, {name!r}, of the pipeline", path, weights)
        for index, (name, body) in enumerate(zip(names, bodies, strict=True), 1)
    }
    return Pipeline(
        path=path,
        specification_version=model.signed(1),
        description=read_model_description(
            model.message(2) or Message(b""), model.unknown(frozenset({1, 2, number}))
        ),
        models=models,
        weight_bytes=weights.total_bytes,
        kind=_KINDS[number],
    )


def _names(given: tuple[str, ...], count: int) -> tuple[str, ...]:
    if len(given) == count == len(set(given)):
        return given
    if given:
        raise PackageError(f"expected a name for each of {count} models in the pipeline, got {list(given)}")
    return tuple(f"model{index}" for index in range(count))


def _part(model: Message, where: str, path: str, weights: WeightStore) -> Package | Pipeline | Suppression:
    try:
        suppression = model.message(_SUPPRESSION)
        if suppression is not None:
            described = read_model_description(model.message(2) or Message(b""))
            return read_suppression(suppression, described, model.signed(1))
        return read_specification(model, path, weights)
    except SdMilError as error:
        raise type(error)(f"{where}: {error}") from error


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
