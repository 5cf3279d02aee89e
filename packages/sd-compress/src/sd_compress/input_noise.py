"""What it costs to quantize the inputs of each layer, and which layers can afford it.

The error is measured on rows that calibration kept, since numbers beyond a range lie in few channels, whose
part in the output no histogram knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
from sd_mil import Program
from sd_mil.ir import NUMPY_DTYPES

from .activations import LAYERS, LayerInputs, activations_of
from .calibration.inputs import types_of
from .ranges import affine_of
from .recipe import Recipe
from .schemes import Activations, Linear
from .snr import decibels
from .weights import Weight, weights_of

#: Why activations stay that a pattern left out.
AS_ASKED: Final = "as asked"


@dataclass(frozen=True, slots=True)
class InputNoise:
    """Noise over signal at the output of the layers of ``weight``, if their inputs alone are integers."""

    weight: str
    noise: float

    @property
    def snr(self) -> float:
        """In dB; infinite without noise."""
        return decibels(self.noise)


def input_noises(
    program: Program,
    recipe: Recipe,
    inputs: LayerInputs,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[InputNoise, ...]:
    """For each weight whose scheme has activations, in the order of the program; others are left out.

    Weights of which ``inputs`` says nothing are left out, too.
    """
    wanted = [
        (weight, scheme)
        for weight in _once(weights_of(program))
        if (scheme := activations_of(recipe.schemes.get(weight.name))) is not None and weight.name in inputs
    ]
    dtypes = {name: kind.dtype for name, kind in types_of(program).items()}
    found = []
    for done, (weight, scheme) in enumerate(wanted, start=1):
        found.append(InputNoise(weight.name, _noise(weight, scheme, inputs, dtypes)))
        if progress is not None:
            progress(done, len(wanted))
    return tuple(found)


def _noise(weight: Weight, scheme: Activations, inputs: LayerInputs, dtypes: Mapping[str, str]) -> float:
    matrix = weight.matrix().astype(np.float32)
    signal = noise = 0.0
    for known in inputs[weight.name]:
        affine = affine_of(known.histogram, scheme, NUMPY_DTYPES[dtypes[known.value]])
        errors = (affine.applied(known.rows) - known.rows).astype(np.float32)
        signal += float(np.square(known.rows @ matrix.T).sum())
        noise += float(np.square(errors @ matrix.T).sum())
    return noise / signal if noise > 0 and signal > 0 else 0.0


@dataclass(frozen=True, slots=True)
class FittedActivations:
    """The recipe without the activations in ``left``, which says why by name; and what the others cost."""

    recipe: Recipe
    noises: tuple[InputNoise, ...]
    left: Mapping[str, str]


def fit_activations(
    program: Program,
    recipe: Recipe,
    inputs: LayerInputs,
    *,
    min_snr: float | None = None,
    without: Iterable[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> FittedActivations:
    """``recipe`` with activations where they can be integers, and where that is affordable.

    They are left as they are for weights that other operations than ``conv`` and ``linear`` take, or layers
    that calibration does not reach; below ``min_snr`` dB at the output of the layer; and where the weight's
    name matches one of the patterns ``without``.
    """
    noises = {one.weight: one for one in input_noises(program, recipe, inputs, progress=progress)}
    patterns, left = tuple(without), {}
    for weight in _once(weights_of(program)):
        if activations_of(recipe.schemes.get(weight.name)) is None:
            continue
        if reason := _reason(weight, noises.get(weight.name), patterns, min_snr):
            left[weight.name] = reason
    schemes = {
        name: replace(scheme, activations=None) if name in left and isinstance(scheme, Linear) else scheme
        for name, scheme in recipe.schemes.items()
    }
    quiet = tuple(one for name, one in noises.items() if name not in left)
    return FittedActivations(Recipe(schemes), quiet, left)


def _reason(weight: Weight, noise: InputNoise | None, without: tuple[str, ...], min_snr: float | None) -> str:
    """Why activations are left as they are; empty if they are not."""
    if any(fnmatchcase(weight.name, pattern) for pattern in without):
        return AS_ASKED
    if weight.kind not in LAYERS or weight.parameter != "weight":
        return f"of {weight.kind}, not conv or linear"
    if noise is None:
        return "calibration does not reach the layer"
    if min_snr is not None and noise.snr < min_snr:
        return f"{noise.snr:.1f} dB at the layer's output"
    return ""


def _once(weights: Iterable[Weight]) -> Iterator[Weight]:
    """The first of each name: several functions may have it."""
    seen: dict[str, Weight] = {}
    for weight in weights:
        seen.setdefault(weight.name, weight)
    yield from seen.values()
