"""How much noise each way to store a weight adds to the network's output, in closed form.

The noise that an error E of a weight W adds to its layer's output is trace(E H E.T), with H the Hessian of
the layer's inputs; the signal there is trace(W H W.T). Their ratio, times the gain of the layer, is noise
over signal at the output of the network. Noises of different weights are as good as uncorrelated, so that
those of a recipe add up. Hessians and gains are collected once, for all schemes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sd_mil import Program

from .calibration.hessians import Hessian
from .calibration.rounding import remaining_noise
from .compress import Assign
from .errors import UnsuitableError
from .schemes import PALETTE_BITS, Keep, Palette, Palettize, Scheme
from .snr import decibels
from .targets import needed, target_of
from .weights import Weight

#: A table for the whole weight, at each width that there is.
WIDTHS: Final = tuple(Palettize(nbits) for nbits in PALETTE_BITS)

#: Gains below this are not told apart: what is that quiet is measured in the noise of fp16.
_LEAST_GAIN: Final = 1e-5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to store a weight: the bytes that it takes, and the noise that comes with it, over the signal."""

    scheme: Scheme
    stored_bytes: int
    noise: float

    @property
    def snr(self) -> float:
        """Signal to noise if this weight alone is stored so, in dB."""
        return decibels(self.noise)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The candidates of one weight, by its name in the program; the first is to keep it as it is."""

    weight: str
    elements: int
    candidates: tuple[Candidate, ...]


def widths_for(program: Program) -> tuple[Palettize, ...]:
    """Those of :data:`WIDTHS` that every target which the program is written for decodes."""
    targets = [target_of(function.opset) for function in program.functions.values()]
    return tuple(scheme for scheme in WIDTHS if needed(scheme) <= min(targets))


def sensitivities(
    weights: Sequence[Weight],
    hessians: Mapping[str, Hessian],
    assign: Assign,
    *,
    gains: Mapping[str, float] | None = None,
    schemes: Sequence[Palettize] = WIDTHS,
    compensated: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Sensitivity, ...]:
    """Those of ``weights`` under each scheme.

    ``gains`` are those of :func:`measure_gains`; without, noise counts alike wherever it arises. ``assign``
    finds plain palettes; ``compensated``: they will be rounded with compensation, and what that is
    expected to leave of their noise is told. A weight without a Hessian counts as if its inputs were alike
    and uncorrelated. Schemes that do not suit a weight are left out.
    """
    found = []
    for done, weight in enumerate(weights, start=1):
        gain = 1.0 if gains is None else max(gains.get(weight.name, 1.0), _LEAST_GAIN)
        known = hessians.get(weight.name)
        found.append(_sensitivity(weight, known, gain, assign, schemes, compensated))
        if progress is not None:
            progress(done, len(weights))
    return tuple(found)


def _sensitivity(
    weight: Weight,
    hessian: Hessian | None,
    gain: float,
    assign: Assign,
    schemes: Sequence[Palettize],
    compensated: bool,
) -> Sensitivity:
    matrix = weight.matrix().astype(np.float32)
    known = Hessian.identity(matrix.shape[1]) if hessian is None else hessian
    signal, share = known.noise(matrix), remaining_noise(known) if compensated else 1.0
    candidates = [Candidate(Keep(), matrix.size * itemsize(weight), 0.0)]
    for scheme in schemes:
        try:
            palette = assign(weight, scheme)
        except UnsuitableError:
            continue
        noise = known.noise(matrix - weight.matrix(palette.decode()).astype(np.float32))
        ratio = gain * share * noise / signal if noise > 0 and signal > 0 else 0.0
        candidates.append(Candidate(scheme, stored_bytes(weight, palette, scheme.nbits), ratio))
    return Sensitivity(weight.name, matrix.size, tuple(candidates))


def stored_sizes(weights: Sequence[Weight], schemes: Sequence[Palettize] = WIDTHS) -> tuple[Sensitivity, ...]:
    """What ``weights`` take under each scheme of one table, before anything is known of the noise, here 0.

    Nothing is read: a budget that is too small for any recipe is found out at once.
    """
    return tuple(Sensitivity(one.name, one.elements, tuple(_sizes(one, schemes))) for one in weights)


def _sizes(weight: Weight, schemes: Sequence[Palettize]) -> Iterator[Candidate]:
    yield Candidate(Keep(), weight.elements * itemsize(weight), 0.0)
    for scheme in schemes:
        table = itemsize(weight) << scheme.nbits
        yield Candidate(scheme, -(-weight.elements * scheme.nbits // 8) + table, 0.0)


def stored_bytes(weight: Weight, palette: Palette, nbits: int) -> int:
    """What a palette takes in a weight file: packed indices, tables and scales."""
    numbers = palette.tables.size + (0 if palette.scales is None else palette.scales.size)
    return -(-palette.indices.size * nbits // 8) + numbers * itemsize(weight)


def itemsize(weight: Weight) -> int:
    """Bytes of an element as it is."""
    return 2 if weight.dtype == "fp16" else 4
