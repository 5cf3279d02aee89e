"""``NonMaximumSuppression`` of NonMaximumSuppression.proto, read and written."""

from __future__ import annotations

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.encoding import double, field, integer, text, varint
from sd_mil.format.wire import Message
from sd_mil.ir.ports import Description
from sd_mil.ir.program import Suppression


def read_suppression(message: Message, description: Description, version: int) -> Suppression:
    """The parameters of the model.

    Raises:
        PackageError: an input or output that the description does not have.
        UnsupportedModelError: another method than PickTop.
    """
    method = message.message(1)
    if method is None:
        raise UnsupportedModelError("expected the method PickTop for a nonMaximumSuppression, got another")
    texts, integers = message.message(100), message.message(101)
    suppression = Suppression(
        description=description,
        iou_threshold=message.real(110) or 0.0,
        confidence_threshold=message.real(111) or 0.0,
        per_class=bool(method.integer(1)),
        labels=_labels(texts, integers),
        confidence=message.text(200),
        coordinates=message.text(201),
        iou_threshold_input=message.text(202),
        confidence_threshold_input=message.text(203),
        confidence_output=message.text(210),
        coordinates_output=message.text(211),
        specification_version=version,
    )
    _check_ports(suppression)
    return suppression


def encode_suppression(model: Suppression) -> bytes:
    """The message of :func:`read_suppression`, without the description and the version."""
    numbers = ((110, model.iou_threshold), (111, model.confidence_threshold))
    names = (
        (200, model.confidence),
        (201, model.coordinates),
        (202, model.iou_threshold_input),
        (203, model.confidence_threshold_input),
        (210, model.confidence_output),
        (211, model.coordinates_output),
    )
    return (
        field(1, integer(1, 1) if model.per_class else b"")
        + _encoded_labels(model.labels)
        + b"".join(double(number, value) for number, value in numbers if value)
        + b"".join(text(number, name) for number, name in names if name)
    )


def _encoded_labels(labels: tuple[str, ...] | tuple[int, ...]) -> bytes:
    texts = b"".join(text(1, label) for label in labels if isinstance(label, str))
    if texts or not labels:
        return field(100, texts) if texts else b""
    return field(101, field(1, b"".join(varint(label) for label in labels if isinstance(label, int))))


def _check_ports(suppression: Suppression) -> None:
    inputs = {port.name for port in suppression.description.inputs}
    outputs = {port.name for port in suppression.description.outputs}
    named = {suppression.confidence, suppression.coordinates}
    results = {suppression.confidence_output, suppression.coordinates_output}
    if len(named) < 2 or len(results) < 2 or not named <= inputs or results != outputs:
        raise PackageError(
            f"expected a nonMaximumSuppression to take {sorted(named)} and return {sorted(results)},"
            f" got inputs {sorted(inputs)} and outputs {sorted(outputs)}"
        )


def _labels(texts: Message | None, integers: Message | None) -> tuple[str, ...] | tuple[int, ...]:
    if texts is not None:
        return texts.texts(1)
    return () if integers is None else tuple(integers.integers(1).tolist())
