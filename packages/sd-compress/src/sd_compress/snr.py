"""How much of a network's outputs is left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

#: In dB: nothing is left of an output.
_LEAST: Final = -200.0


@dataclass(slots=True)
class SignalToNoise:
    """The energy of every output, and of what differs from it, over all the inputs that were added.

    Units: dB; ``10 log10(sum of expected ** 2 / sum of (expected - got) ** 2)``. Unlike the peak signal to
    noise of a verification it does not grow with the largest value of an output.
    """

    _signal: dict[str, float] = field(default_factory=dict)
    _noise: dict[str, float] = field(default_factory=dict)

    def add(self, expected: Mapping[str, npt.NDArray[Any]], got: Mapping[str, npt.NDArray[Any]]) -> None:
        """The outputs for one more input.

        Raises:
            KeyError: an expected output is missing.
            ValueError: an output has another shape.
        """
        for name, array in expected.items():
            wanted, found = (np.asarray(one, np.float64) for one in (array, got[name]))
            if wanted.shape != found.shape:
                raise ValueError(f"expected {name!r} of shape {wanted.shape}, got {found.shape}")
            self._signal[name] = self._signal.get(name, 0.0) + float(np.square(wanted).sum())
            with np.errstate(over="ignore", invalid="ignore"):
                self._noise[name] = self._noise.get(name, 0.0) + float(np.square(wanted - found).sum())

    def decibels(self) -> dict[str, float | None]:
        """By output: None where not a bit differs; at least -200, which is also what is not finite."""
        return {name: _decibels(self._signal[name], noise) for name, noise in self._noise.items()}


def _decibels(signal: float, noise: float) -> float | None:
    if noise == 0:
        return None
    if signal == 0 or not math.isfinite(signal) or not math.isfinite(noise):
        return _LEAST
    return max(_LEAST, 10 * math.log10(signal / noise))


def decibels(noise: float) -> float:
    """Of noise over signal; infinite without noise."""
    return -10 * math.log10(noise) if noise > 0 else math.inf
