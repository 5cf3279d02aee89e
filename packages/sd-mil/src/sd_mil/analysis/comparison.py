"""How far apart the outputs of two models are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sd_mil.analysis.measures import decibels, fidelity, largest_error
from sd_mil.analysis.predictors import predictor
from sd_mil.errors import ComparisonError


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """One output: ``other`` is what the second model calls it."""

    output: str
    other: str
    shape: tuple[int, ...]
    psnr: float
    max_error: float

    def __str__(self) -> str:
        """``noise_pred [2, 4, 64, 64]: 71.3 dB, largest error 0.0012``."""
        return f"{self.output} {list(self.shape)}: {decibels(self.psnr)}, largest error {self.max_error:.3g}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every output that both models have."""

    rows: tuple[OutputFidelity, ...]

    @property
    def worst(self) -> OutputFidelity:
        """The output that is furthest off."""
        return min(self.rows, key=lambda row: row.psnr)

    def passed(self, min_psnr: float = 35.0) -> bool:
        """Whether every output reaches so many dB; 35 is what Apple's converter wants."""
        return self.worst.psnr >= min_psnr

    def __str__(self) -> str:
        """One line for each output."""
        return "\n".join(map(str, self.rows))


def compare(a: object, b: object, inputs: Mapping[str, Any]) -> Comparison:
    """Run two models on the same inputs, and measure how close their outputs are; ``a`` is the reference.

    Each is a path (``.mlpackage``, ``.mlmodelc``, ``.mlmodel``, ``.onnx``), a read package, an
    :class:`sd_mil.MLModel`, a torch module (called with tensors, by name if its ``forward`` has these names,
    else in the order of ``inputs``), or a callable from a dictionary of arrays to a dictionary, a tuple or an
    array. Outputs are matched by name, or in their order where the names differ.

    Raises:
        ComparisonError: no output in common, or a different number of them under different names.
        MissingEngineError: a library that a model needs is not installed.
        SdMilError: a model cannot be read or run.
    """
    return compare_outputs(predictor(a)(inputs), predictor(b)(inputs))


def compare_outputs(expected: Mapping[str, Any], got: Mapping[str, Any]) -> Comparison:
    """Measure how close named outputs are, as :func:`compare` does."""
    return Comparison(
        tuple(_row(name, other, expected[name], got[other]) for name, other in _pairs(expected, got))
    )


def _pairs(expected: Mapping[str, Any], got: Mapping[str, Any]) -> list[tuple[str, str]]:
    shared = [(name, name) for name in expected if name in got]
    if shared:
        return shared
    if not expected or len(expected) != len(got):
        raise ComparisonError(
            f"expected outputs of the same names or number, got {list(expected)} and {list(got)}"
        )
    return list(zip(expected, got, strict=True))


def _row(name: str, other: str, expected: Any, got: Any) -> OutputFidelity:
    left, right = _numbers(expected), _numbers(got)
    if left.shape != right.shape and left.size == right.size == 1:
        right = right.reshape(left.shape)
    return OutputFidelity(name, other, left.shape, fidelity(left, right), largest_error(left, right))


def _numbers(value: Any) -> np.ndarray:
    """An output as an array: pixels of images, probabilities of dictionaries in the order of their labels."""
    if isinstance(value, Mapping):
        return np.array([value[label] for label in sorted(value, key=str)], np.float64)
    if isinstance(value, str):
        return np.frombuffer(value.encode(), np.uint8)
    return np.asarray(value)
