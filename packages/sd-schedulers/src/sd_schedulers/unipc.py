"""UniPC: a predictor in log SNR, and a corrector that costs no evaluation of its own.

Source: arXiv 2302.04867 (UniPC), algorithms 5 to 8; diffusers ``UniPCMultistepScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sd_schedulers.clipping import Clip, clip_of
from sd_schedulers.dpm_solver import SOLVER_KEYS, check_flow, converted, refuse_equal_levels
from sd_schedulers.errors import ScheduleError
from sd_schedulers.flow_match_euler import stretched, time_shifted
from sd_schedulers.prediction import Float32, Level
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule, FlowSchedule, NoiseSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.spacing import (
    SigmaGrid,
    check_step_count,
    final_sigma,
    flow_shift,
    shifted,
    solver_sigmas,
    spaced_timesteps,
)
from sd_schedulers.start import Span

KEYS = ConfigKeys(
    honoured=SOLVER_KEYS
    | {"predict_x0", "solver_type", "disable_corrector", "timestep_spacing", "steps_offset"}
    | {"final_sigmas_type", "rescale_betas_zero_snr", "shift_terminal"},
    limited={"solver_p": ()},  # a scheduler inside a scheduler
)


@dataclass(frozen=True, slots=True)
class _Solver:
    order: int
    predicts_clean: bool
    bh1: bool
    lower_order_final: bool
    uncorrected: frozenset[int]


def unipc(model: Model, schedule: NoiseSchedule, span: Span) -> Iterator[Step]:
    """Sampling of ``solver_order`` (2), and one more by the corrector, in ``n`` evaluations.

    Raises:
        ScheduleError: settings that contradict each other, or as many steps as there are timesteps.
    """
    settings = schedule.settings
    kind = settings.choice("solver_type", "bh2", ("bh1", "bh2", "midpoint", "heun", "logrho"))
    solver = _Solver(
        order=settings.count("solver_order", 2, low=1, high=9),
        predicts_clean=settings.flag("predict_x0", default=True),
        bh1=kind == "bh1",
        lower_order_final=settings.flag("lower_order_final", default=True),
        uncorrected=_uncorrected(settings.get("disable_corrector", [])),
    )
    grid = _grid(schedule, span)
    refuse_equal_levels(grid, "unipc")
    _check_end(grid, solver)
    window = span.window(grid.timesteps, schedule)
    latent = span.latent(at=schedule.level(grid.sigmas[window.start]))
    # diffusers thresholds the estimate of the clean latent only where that is what it combines.
    clip = clip_of(settings) if solver.predicts_clean else None
    return _steps(model, latent, schedule, grid, window, solver, clip)


def _uncorrected(steps: object) -> frozenset[int]:
    if not isinstance(steps, list | tuple) or not all(type(step) is int for step in steps):
        raise ScheduleError(f"expected disable_corrector to be a list of whole numbers, got {steps!r}")
    return frozenset(steps)


def _grid(schedule: NoiseSchedule, span: Span) -> SigmaGrid:
    settings = schedule.settings
    if isinstance(schedule, FlowSchedule):
        return _flow_grid(schedule, span)
    if not isinstance(schedule, DDPMSchedule):
        raise ScheduleError(f"expected a DDPM or flow-matching schedule, got {type(schedule).__name__}")
    if settings.get("shift_terminal", None) is not None:
        raise ScheduleError("expected shift_terminal with use_flow_sigmas only, got it without")
    spaced = spaced_timesteps(schedule, span.count, default="linspace", without_last=True).round()
    timesteps, sigmas, respaced = solver_sigmas(schedule, spaced)
    final = final_sigma(settings, schedule.sigmas())
    return SigmaGrid.of(timesteps, sigmas, sigmas[-1] if respaced and final else final)


def _flow_grid(schedule: FlowSchedule, span: Span) -> SigmaGrid:
    settings, total = schedule.settings, schedule.num_train_timesteps
    check_flow(schedule, span.mu)
    check_step_count(schedule, span.count)
    sigmas = np.linspace(1, 1 / total, span.count + 1)[:-1]
    if span.mu is not None:
        sigmas = time_shifted(settings, sigmas, span.mu)
    else:
        sigmas = shifted(sigmas, flow_shift(settings, None))
    sigmas = stretched(settings, sigmas)
    if abs(sigmas[0] - 1) < 1e-6:  # log SNR has no beginning there
        sigmas[0] -= 1e-6
    zero = settings.choice("final_sigmas_type", "zero", ("zero", "sigma_min")) == "zero"
    return SigmaGrid.of(np.trunc(sigmas * total), sigmas, 0.0 if zero else sigmas[-1])


def _check_end(grid: SigmaGrid, solver: _Solver) -> None:
    """An end at no noise is as far as log SNR goes; one at the last level is no step at all."""
    last, end = grid.sigmas[-2:]
    if end == last:
        raise ScheduleError(
            "expected final_sigmas_type 'zero' for unipc with levels that end where the table does, got "
            "'sigma_min': the last step would go nowhere"
        )
    if end == 0 and not solver.predicts_clean:
        raise ScheduleError("expected final_sigmas_type 'sigma_min' for unipc without predict_x0, got 'zero'")
    if end == 0 and not solver.lower_order_final and solver.order > 1 and len(grid.timesteps) > 1:
        raise ScheduleError(
            "expected lower_order_final true for unipc with final_sigmas_type 'zero', got false: there is "
            "nothing to extrapolate to"
        )


def _steps(
    model: Model,
    latent: Float32,
    schedule: NoiseSchedule,
    grid: SigmaGrid,
    window: range,
    solver: _Solver,
    clip: Clip | None,
) -> Iterator[Step]:
    count, levels = len(grid.timesteps), [schedule.level(sigma) for sigma in grid.sigmas]
    history: tuple[Float32, ...] = ()
    before, order = latent, 0
    for index in window:
        here, timestep = levels[index], grid.timesteps[index]
        output = model(schedule.network_input(latent, at=here), timestep)
        estimate, outcome = converted(
            output, latent, schedule, here, noise=not solver.predicts_clean, clip=clip
        )
        if history and index - 1 not in solver.uncorrected:
            past = [levels[index - 1 - number] for number in range(order)]
            latent = _update(before, history[:order], past, here, solver, outcome=outcome)
        history = (outcome, *history[: solver.order - 1])
        before = latent
        order = min(len(history), count - index) if solver.lower_order_final else len(history)
        past = [levels[index - number] for number in range(order)]
        latent = _update(latent, history[:order], past, levels[index + 1], solver)
        yield Step(index - window.start, len(window), timestep, latent, estimate)


def _update(
    latent: Float32,
    history: Sequence[Float32],
    past: Sequence[Level],
    there: Level,
    solver: _Solver,
    *,
    outcome: Float32 | None = None,
) -> Float32:
    """From the newest of ``past`` to ``there``: predicted, or corrected by the ``outcome`` there."""
    here, newest = past[0], history[0]
    h = there.log_snr - here.log_snr
    step = -h if solver.predicts_clean else h
    ratios = [(level.log_snr - here.log_snr) / h for level in past[1:]]
    differences = [(old - newest) / ratio for old, ratio in zip(history[1:], ratios, strict=True)]
    if outcome is not None:
        ratios, differences = [*ratios, 1.0], [*differences, outcome - newest]
    growth = math.expm1(step)
    carried, scale = (
        (there.sigma / here.sigma, there.alpha)
        if solver.predicts_clean
        else (there.alpha / here.alpha, there.sigma)
    )
    latent = carried * latent - scale * growth * newest
    if not differences:
        return latent
    scale *= step if solver.bh1 else growth
    weights = _weights(ratios, step, growth, bh1=solver.bh1)
    for weight, difference in zip(weights, differences, strict=True):
        latent = latent - scale * weight * difference
    return latent


def _weights(ratios: Sequence[float], step: float, growth: float, *, bh1: bool) -> Sequence[float]:
    """Of the differences, so that the step is exact for polynomials; one difference is weighted by 1/2."""
    if len(ratios) == 1:
        return (0.5,)
    divisor = step if bh1 else growth
    phi, factorial = growth / step - 1, 1
    moments = []
    for number in range(1, len(ratios) + 1):
        moments.append(phi * factorial / divisor)
        factorial *= number + 1
        phi = phi / step - 1 / factorial
    powers = np.power.outer(np.array(ratios), np.arange(len(ratios))).T
    solution: list[float] = np.linalg.solve(powers, np.array(moments)).tolist()
    return solution


UNIPC = Scheduler(
    name="unipc",
    diffusers="UniPCMultistepScheduler",
    keys=KEYS,
    forms=(DDPMSchedule, FlowSchedule),
    sampler=unipc,
    aliases=("UniPCMultistep", "uni_pc"),
    takes_mu=True,
)
