"""An assertion that says where a model goes wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sd_mil.analysis import Comparison, compare, first_divergence
from sd_mil.errors import SdMilError
from sd_mil.ir.program import Package, Pipeline
from sd_mil.predict.model import MLModel
from sd_mil.testing.inputs import seeded_inputs


class OutputsDifferError(AssertionError):
    """Outputs are further apart than allowed; the message names the first operation that is."""


def assert_same_outputs(
    model: str | os.PathLike[str] | Package | Pipeline | MLModel,
    reference: object,
    inputs: Mapping[str, Any] | None = None,
    *,
    min_psnr: float = 35.0,
    seed: int = 0,
) -> Comparison:
    """Run both on the same inputs, and fail where an output differs by fewer dB than ``min_psnr``.

    ``reference`` is what :func:`sd_mil.compare` takes: a path (``.mlpackage``, ``.mlmodelc``, ``.mlmodel``,
    ``.onnx``), a model, a torch module, or a callable from a dictionary of arrays. ``inputs`` are drawn by
    :func:`seeded_inputs` from ``seed`` where none are given. Paths run on the portable engine (OpenVINO);
    an :class:`sd_mil.MLModel` brings its own.

    Returns:
        How close each output is.

    Raises:
        OutputsDifferError: an output differs. Where both are ML Programs, the first operation whose results
            part is named; else whether the model's engine computes what the program says.
        SdMilError: a model cannot be read or run, or outputs have no counterpart.
    """
    tested = model if isinstance(model, MLModel) else MLModel(model)
    given = seeded_inputs(tested, seed=seed) if inputs is None else inputs
    comparison = compare(reference, tested, given)
    if not comparison.passed(min_psnr):
        raise OutputsDifferError(_message(tested, reference, given, comparison, min_psnr))
    return comparison


def _message(
    tested: MLModel, reference: object, inputs: Mapping[str, Any], comparison: Comparison, min_psnr: float
) -> str:
    failing = [f"  {row}" for row in comparison.rows if row.psnr < min_psnr]
    heading = (
        f"expected every output within {min_psnr:g} dB, got {len(failing)} of {len(comparison.rows)} below:"
    )
    return "\n".join([heading, *failing, _where(tested, reference, inputs, min_psnr)])


def _where(tested: MLModel, reference: object, inputs: Mapping[str, Any], min_psnr: float) -> str:
    both = _is_program(reference)
    other = reference if both else MLModel(tested.package, "reference", function_name=tested.function_name)
    try:
        report = first_divergence(_analysable(other), tested, inputs, threshold_db=min_psnr)
    except SdMilError as error:  # pipelines, other functions: what was found out still has to be said
        return f"where they part cannot be said: {error}"
    if both or report.first is not None:
        return str(report)
    return "the engine computes what the program says: the program or its weights differ from the reference"


def _analysable(model: object) -> Any:
    """A program on the engine that it was compared on."""
    return MLModel(model) if isinstance(model, str | os.PathLike | Package) else model


def _is_program(reference: object) -> bool:
    if isinstance(reference, str | os.PathLike):
        return Path(reference).suffix != ".onnx"
    return isinstance(reference, MLModel | Package)
