"""How close two values of a program are, whatever they are."""

from __future__ import annotations

import math

import numpy as np

from sd_mil.analysis.fidelity import psnr
from sd_mil.engines.reference import ListValue


def fidelity(expected: object, got: object) -> float:
    """PSNR in dB over the elements that are finite; ``inf`` where all are equal.

    Infinities and NaN that stand at the same places count as equal, as in masks; others give ``-inf``, as do
    other shapes.
    """
    if isinstance(expected, ListValue) and isinstance(got, ListValue):
        if len(expected.items) != len(got.items):
            return -math.inf
        pairs = zip(expected.items, got.items, strict=True)  # None where nothing was written
        return min((fidelity(one, other) for one, other in pairs), default=math.inf)
    if not isinstance(expected, np.ndarray) or not isinstance(got, np.ndarray):
        return math.inf if _equal(expected, got) else -math.inf
    if expected.shape != got.shape:
        return -math.inf
    return _arrays(expected.astype(np.float64), got.astype(np.float64))


def _equal(expected: object, got: object) -> bool:
    """Of values that are not both arrays; one alone equals nothing."""
    alone = isinstance(expected, np.ndarray) or isinstance(got, np.ndarray)
    return not alone and expected == got


def _arrays(expected: np.ndarray, got: np.ndarray) -> float:
    same = (expected == got) | (np.isnan(expected) & np.isnan(got))
    if same.all():
        return math.inf
    regular = np.isfinite(expected) | ~same
    return psnr(expected[regular], got[regular])


def largest_error(expected: object, got: object) -> float:
    """The largest absolute difference; ``inf`` where one of the values is not finite or not a number."""
    if not isinstance(expected, np.ndarray) or not isinstance(got, np.ndarray):
        return 0.0 if _equal(expected, got) else math.inf
    if expected.shape != got.shape:
        return math.inf
    left, right = expected.astype(np.float64), got.astype(np.float64)
    differing = ~((left == right) | (np.isnan(left) & np.isnan(right)))
    if not differing.any():
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        error = float(np.abs(left[differing] - right[differing]).max())
    return math.inf if math.isnan(error) else error


def decibels(value: float | None) -> str:
    """``41.2 dB``, or ``equal``, ``not finite``, ``not compared``."""
    if value is None:
        return "not compared"
    if math.isinf(value):
        return "equal" if value > 0 else "no likeness"
    return f"{value:.1f} dB"
