"""Palettes that are chosen by what they do to a layer's output instead of to its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_compress.calibration.devices import Device, DeviceHessian, check_device
from sd_compress.calibration.hessians import Hessian
from sd_compress.calibration.refitting import refitted
from sd_compress.calibration.rounding import DAMPING, compensated
from sd_compress.calibration.tables import Tables, palette_of, tables_of
from sd_compress.compress import Assign
from sd_compress.schemes import Palette, Palettize
from sd_compress.weights import Weight

Array: TypeAlias = npt.NDArray[Any]

#: Rounds of assigning and refitting end when refitting takes away less than this share of the noise.
_WORTHWHILE = 0.03
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Improves the palettes that ``start`` finds, for the weights that have a Hessian.

    Under its Hessian no palette is worse than what ``start`` found. ``damping`` is a share of the mean of a
    Hessian's diagonal. ``device``: where torch computes; if None, numpy and compiled loops do.

    Raises:
        UnsupportedFormError: when called, with vectors that do not run over output channels.
    """

    hessians: Mapping[str, Hessian]
    start: Assign
    damping: float = DAMPING
    device: Device | None = None

    def __call__(self, weight: Weight, scheme: Palettize) -> Palette:
        """The palette of one weight."""
        palette = self.start(weight, scheme)
        hessian = self.hessians.get(weight.name)
        if hessian is None:
            return palette
        return improved(weight, palette, hessian, damping=self.damping, device=self.device)


@dataclass(frozen=True, slots=True)
class _Candidate:
    tables: Tables
    indices: Array
    noise: float


def improved(
    weight: Weight,
    palette: Palette,
    hessian: Hessian,
    *,
    damping: float = DAMPING,
    device: Device | None = None,
) -> Palette:
    """Assign with error compensation and refit the tables, in turn, for as long as that is worthwhile.

    Raises:
        UnsupportedFormError: see :class:`Calibrated`.
        CalibrationError: there is no such device.
    """
    if device is not None:
        check_device(device)
        hessian = DeviceHessian.of(hessian, device)
    dtype = np.float16 if weight.dtype == "fp16" else np.float32
    matrix = weight.matrix().astype(np.float32)
    tables = tables_of(weight, palette)
    tables, _ = tables.rounded(tables.entries, dtype).in_order(np.zeros((tables.rows, 1), np.uint8))
    start = hessian.noise(matrix - weight.matrix(palette.decode()).astype(np.float32))
    best = _Search(matrix, hessian, damping, dtype).best(tables)
    return palette_of(weight, palette, best.tables, best.indices) if best.noise < start else palette


@dataclass(frozen=True, slots=True)
class _Search:
    """What stays the same from one round to the next."""

    matrix: Array
    hessian: Hessian
    damping: float
    dtype: npt.DTypeLike

    def best(self, tables: Tables) -> _Candidate:
        """The least noise of rounds of assigning and refitting that begin with these tables.

        Where refitting takes little away, the tables hardly move, and another round finds the same again.
        """
        assigned = best = self._assigned(tables)
        for _ in range(_ROUNDS):
            refit = self._refit(assigned)
            best = min(best, assigned, refit, key=lambda candidate: candidate.noise)
            if refit.noise > (1 - _WORTHWHILE) * assigned.noise:
                break
            assigned = self._assigned(refit.tables)
        return min(best, assigned, key=lambda candidate: candidate.noise)

    def _assigned(self, tables: Tables) -> _Candidate:
        return self._candidate(tables, compensated(self.matrix, tables, self.hessian, self.damping))

    def _refit(self, found: _Candidate) -> _Candidate:
        entries = refitted(self.matrix, found.tables, found.indices, self.hessian)
        return self._candidate(found.tables.rounded(entries, self.dtype), found.indices)

    def _candidate(self, tables: Tables, indices: Array) -> _Candidate:
        noise = self.hessian.noise(self.matrix - tables.decode(indices))
        return _Candidate(*tables.in_order(indices), noise)
