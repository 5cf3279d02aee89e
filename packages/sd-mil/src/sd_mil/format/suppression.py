"""``NonMaximumSuppression`` of NonMaximumSuppression.proto."""

from __future__ import annotations

from sd_mil.errors import PackageError, UnsupportedModelError
from sd_mil.format.wire import Message
from sd_mil.ir.ports import Description
from sd_mil.ir.program import Suppression


def read_suppression(message: Message, description: Description) -> Suppression:
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
    )
    _check_ports(suppression)
    return suppression


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
