"""What compression does to the outputs, measured, and the smallest recipe that is good enough by that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy.typing as npt
from sd_mil import Program
from sd_mil.engines import OpenVINO, ProgramEngine

from .errors import BudgetError
from .plan import Plan, plan_for_snr
from .schemes import Scheme
from .sensitivity import Sensitivity
from .snr import SignalToNoise

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]

#: A measured quality this far above the one asked for, in dB, is near enough.
_NEAR: Final = 0.25
_ATTEMPTS: Final = 6
#: Of what is asked for, from one attempt to the next, in dB.
_LARGEST_STEP: Final = 12.0


def signal_to_noise(
    program: Program, other: Program, inputs: Sequence[Arrays], engine: ProgramEngine | None = None
) -> float:
    """How far the outputs of ``other`` are from those of ``program`` over ``inputs``: the worst one, in dB.

    Only outputs of floating point count; infinite where not a bit differs.

    Raises:
        EngineError: the engine does not run them.
    """
    chosen = engine or OpenVINO()
    return signal_to_noise_of(chosen, other, inputs, floats_of(chosen, program, inputs))


def floats_of(engine: ProgramEngine, program: Program, inputs: Sequence[Arrays]) -> list[Arrays]:
    """The outputs of floating point for each of ``inputs``."""
    compiled = engine.compile(program)
    return [
        {name: value for name, value in compiled.run(arrays).items() if value.dtype.kind == "f"}
        for arrays in inputs
    ]


def signal_to_noise_of(
    engine: ProgramEngine, program: Program, inputs: Sequence[Arrays], expected: Sequence[Arrays]
) -> float:
    """How far the outputs are from those ``expected``, see :func:`floats_of`: the worst one, in dB."""
    meter, compiled = SignalToNoise(), engine.compile(program)
    for arrays, outputs in zip(inputs, expected, strict=True):
        meter.add(outputs, compiled.run(arrays))
    return min((math.inf if one is None else one for one in meter.decibels().values()), default=math.inf)


def smallest_plan(
    weights: Sequence[Sensitivity], snr: float, measure: Callable[[Plan], float]
) -> tuple[Plan, float]:
    """The smallest plan found whose measured signal to noise is at least ``snr`` dB, and what that is.

    What is measured differs from what is expected by much the same for all plans of a network, so that asking
    for as much more as was missing, or less as was too much, leads there in a few attempts.

    Raises:
        BudgetError: none is that good.
    """
    asked, best, most = snr, None, -math.inf
    # What was expected of plans that were not good enough, and asked for where they were.
    bad, good = -math.inf, math.inf
    known: dict[tuple[Scheme, ...], float] = {}
    while len(known) < _ATTEMPTS:
        plan = plan_for_snr(weights, asked)
        schemes = tuple(plan.schemes.values())
        got = known[schemes] if schemes in known else measure(plan)
        known[schemes] = got = -math.inf if math.isnan(got) else got
        most = max(most, got)
        if got < snr:
            bad = max(bad, plan.snr)
        else:
            good = min(good, asked)
            if best is None or plan.stored_bytes < best[0].stored_bytes:
                best = plan, got
        if snr <= got < snr + _NEAR or plan.noise == 0 or good - bad < _NEAR:
            break
        # Where few plans are near, one is expected to be much better than was asked for, and is not enough.
        asked = max(asked, plan.snr) if got < snr else asked
        asked += min(max(snr - got, -_LARGEST_STEP), _LARGEST_STEP) + _NEAR / 2
        if not bad < asked < good:
            asked = (bad + good) / 2
    if best is None:
        raise BudgetError(f"expected at most {most:.1f} dB, the best that was measured, got {snr:g} dB")
    return best
