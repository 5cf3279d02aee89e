"""Core ML's ``nonMaximumSuppression`` model, with numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sd_mil.errors import PredictionError
from sd_mil.ir.ports import Description, Port, ShapeRange
from sd_mil.ir.program import Suppression
from sd_mil.predict.features import number

Array = npt.NDArray[Any]


def suppression_ports(model: Suppression) -> Description:
    """The model's ports, and its thresholds where it names them as inputs without describing them.

    Exporters of detectors leave these to the description of the pipeline; if they are not given, the model's
    own hold.
    """
    described = {port.name for port in model.description.inputs}
    named = dict.fromkeys((model.iou_threshold_input, model.confidence_threshold_input))
    thresholds = (
        Port(name, (), "float64", kind="double", optional=True)
        for name in named
        if name and name not in described
    )
    return replace(model.description, inputs=(*model.description.inputs, *thresholds))


def suppress(model: Suppression, data: Mapping[str, Any]) -> dict[str, Array]:
    """The boxes that stay, the most confident first.

    Shapes: confidence ``N x C``, coordinates ``N x 4`` (centre x, centre y, width, height); leading
    dimensions of size 1 are dropped. A box goes when its highest confidence is below the threshold, or when
    it overlaps a more confident one (of the same class, if the model is per class) by more than the IoU
    threshold. Outputs of fixed size are cut, or padded with zeros.

    Raises:
        PredictionError: the shapes do not fit each other, or a threshold is no finite number.

    Source: NonMaximumSuppression.proto of apple/coremltools, PickTop.
    """
    confidence = _matrix(data[model.confidence], model.confidence)
    coordinates = _matrix(data[model.coordinates], model.coordinates)
    if coordinates.shape != (len(confidence), 4) or confidence.shape[1] == 0:
        raise PredictionError(
            f"expected confidences N x C and boxes N x 4, got {confidence.shape} and {coordinates.shape}"
        )
    least = _threshold(data, model.confidence_threshold_input, model.confidence_threshold)
    overlap = _threshold(data, model.iou_threshold_input, model.iou_threshold)
    kept = _pick_top(confidence, coordinates, least, overlap, per_class=model.per_class)
    rows = _rows(model, len(kept))
    ports = {port.name: port for port in model.description.outputs}
    pairs = ((model.confidence_output, confidence), (model.coordinates_output, coordinates))
    return {name: _sized(values[kept], rows, ports[name]) for name, values in pairs}


def _threshold(data: Mapping[str, Any], name: str, stated: float) -> float:
    if not name or name not in data:
        return stated
    given = float(number(data[name], Port(name, (), "float64", kind="double")))
    if not math.isfinite(given):
        raise PredictionError(f"expected a threshold for {name!r}, got {given}")
    return given


def _matrix(value: object, name: str) -> Array:
    array = np.asarray(value)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.dtype.kind != "f":
        raise PredictionError(
            f"expected a matrix of floats for {name!r}, got {array.dtype}{list(array.shape)}"
        )
    return array.astype(np.float64)


def _pick_top(
    confidence: Array, coordinates: Array, least: float, overlap: float, *, per_class: bool
) -> npt.NDArray[np.intp]:
    best, classes = confidence.max(axis=1), confidence.argmax(axis=1)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] >= least]
    kept: list[int] = []
    while order.size:
        top, rest = order[0], order[1:]
        kept.append(int(top))
        discarded = _iou(coordinates[top], coordinates[rest]) > overlap
        if per_class:
            discarded &= classes[rest] == classes[top]
        order = rest[~discarded]
    return np.array(kept, np.intp)


def _iou(box: Array, boxes: Array) -> Array:
    low = np.maximum(box[:2] - box[2:] / 2, boxes[:, :2] - boxes[:, 2:] / 2)
    high = np.minimum(box[:2] + box[2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2)
    shared = np.clip(high - low, 0, None).prod(axis=1)
    union = box[2:].prod() + boxes[:, 2:].prod(axis=1) - shared
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(union > 0, shared / union, 0.0)


def _rows(model: Suppression, count: int) -> int:
    """How many rows the outputs have: those that one of their ports states, or as many as there are boxes."""
    for port in model.description.outputs:
        if isinstance(port.flexibility, ShapeRange) and port.flexibility.bounds:
            low, high = port.flexibility.bounds[0]
            count = max(low, count if high is None else min(count, high))
        elif port.flexibility is None and len(port.shape) == 2 and port.shape[0]:
            count = port.shape[0]
    return count


def _sized(values: Array, rows: int, port: Port) -> Array:
    sized = np.zeros((rows, values.shape[1]), port.dtype)
    sized[: len(values)] = values[:rows]
    return sized
