"""How far apart the outputs of two models are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sd_mil.analysis.measures import decibels, fidelity, largest_error
from sd_mil.analysis.pairing import Pair, Reason, paired
from sd_mil.analysis.predictors import predictor
from sd_mil.errors import printable


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """One output: ``other`` is what the second model calls it, and ``paired_by`` how that is known."""

    output: str
    other: str
    shape: tuple[int, ...]
    psnr: float
    max_error: float
    paired_by: Reason = "name"

    def __str__(self) -> str:
        """``noise_pred [2, 4, 64, 64]: 71.3 dB, largest error 0.0012``."""
        other = f" with {printable(self.other)}, paired by {self.paired_by}"
        with_ = other if self.paired_by != "name" else ""
        likeness = f"{decibels(self.psnr)}, largest error {self.max_error:.3g}"
        return f"{printable(self.output)} {list(self.shape)}{with_}: {likeness}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every output of both models; there is at least one."""

    rows: tuple[OutputFidelity, ...]

    @property
    def worst(self) -> OutputFidelity:
        """The output that is furthest off."""
        return min(self.rows, key=lambda row: row.psnr)

    def passed(self, min_psnr: float = 35.0) -> bool:
        """Whether every output reaches so many dB; 35 is what Apple's converter wants."""
        return all(row.psnr >= min_psnr for row in self.rows)

    def __str__(self) -> str:
        """One line for each output."""
        return "\n".join(map(str, self.rows))


def compare(a: object, b: object, inputs: Mapping[str, Any]) -> Comparison:
    """Run two models on the same inputs, and measure how close their outputs are; ``a`` is the reference.

    Each is a path (``.mlpackage``, ``.mlmodelc``, ``.mlmodel``, ``.onnx``), a read package, an
    :class:`sd_mil.MLModel`, a torch module (called with tensors, by name if its ``forward`` has these names,
    else in the order of ``inputs``), or a callable from a dictionary of arrays to a dictionary, a tuple or an
    array. Outputs are paired by name, else by shape and type where only one of each side has these; those
    without names (a tuple) go in their order.

    Raises:
        ComparisonError: an output without a counterpart, or of which it is not beyond doubt.
        MissingEngineError: a library that a model needs is not installed.
        SdMilError: a model cannot be read or run.
    """
    return compare_outputs(predictor(a)(inputs), predictor(b)(inputs))


def compare_outputs(expected: Mapping[str, Any], got: Mapping[str, Any]) -> Comparison:
    """Measure how close named outputs are, as :func:`compare` does."""
    return Comparison(
        tuple(_row(pair, expected[pair.name], got[pair.other]) for pair in paired(expected, got))
    )


def _row(pair: Pair, expected: Any, got: Any) -> OutputFidelity:
    left, right = _comparable(expected, got)
    shape = left.shape if isinstance(left, np.ndarray) else ()
    return OutputFidelity(
        pair.name, pair.other, shape, fidelity(left, right), largest_error(left, right), pair.reason
    )


def _comparable(expected: Any, got: Any) -> tuple[Any, Any]:
    """Arrays where both are numbers; labels, of which those that differ at all have nothing in common."""
    if any(isinstance(value, Mapping) for value in (expected, got)):
        return _probabilities(expected, got)
    if any(isinstance(value, str) for value in (expected, got)):
        return expected, got
    if all(type(value) is int for value in (expected, got)):
        return expected, got
    left, right = np.asarray(expected), np.asarray(got)
    if left.shape != right.shape and left.size == right.size == 1:
        right = right.reshape(left.shape)
    return left, right


def _probabilities(expected: Any, got: Any) -> tuple[Any, Any]:
    """In the order of their labels, which have to be the same."""
    if not (isinstance(expected, Mapping) and isinstance(got, Mapping) and set(expected) == set(got)):
        return expected, None
    left, right = ([values[label] for label in expected] for values in (expected, got))
    return np.array(left, np.float64), np.array(right, np.float64)
