"""DPM-Solver++(2M): second-order multistep in the predicted clean latent.

Source: arXiv 2211.01095 (DPM-Solver++), algorithm 2; diffusers ``DPMSolverMultistepScheduler`` with its
defaults (``dpmsolver++``, order 2, midpoint).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from sd_schedulers.errors import ScheduleError
from sd_schedulers.parametrisation import Level, denoised
from sd_schedulers.sampling import Model, Step
from sd_schedulers.schedule import Float32, NoiseSchedule
from sd_schedulers.spacing import SigmaGrid, sigma_grid, spaced_timesteps
from sd_schedulers.start import Span

NAME = "dpmpp_2m"
#: What DDPM configs say of a network that predicts no variance.
FIXED_VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
#: Below this many steps, the last one is first-order for stability.
FEW_STEPS = 15


def dpmpp_2m(model: Model, schedule: NoiseSchedule, span: Span) -> Iterator[Step]:
    """Second-order sampling in ``n`` evaluations.

    Raises:
        ScheduleError: the config asks for another algorithm, order or sigma schedule than this solver's.
    """
    _refuse_other_solvers(schedule)
    timesteps = spaced_timesteps(schedule, span.count, default="linspace", without_last=True).round()
    table = schedule.sigmas()
    grid = _whole(sigma_grid(schedule, timesteps, span=(float(table[-1]), float(table[0]))), schedule)
    _refuse_equal_levels(grid)
    window = span.window(grid.timesteps, schedule)
    latent = span.latent(at=_level(grid.sigmas[window.start]))
    return _steps(model, latent, schedule, grid, window)


def _refuse_other_solvers(schedule: NoiseSchedule) -> None:
    settings = schedule.settings
    # DEIS and UniPC configs name their own algorithms; diffusers reads these names as its defaults.
    settings.require("algorithm_type", "dpmsolver++", "deis", sampler=NAME)
    settings.require("solver_type", "midpoint", "logrho", "bh1", "bh2", sampler=NAME)
    settings.require("solver_order", 2, sampler=NAME)
    settings.require("lambda_min_clipped", -math.inf, sampler=NAME)
    settings.require("variance_type", *FIXED_VARIANCES, sampler=NAME)
    for key in (
        "thresholding",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_lu_lambdas",
        "use_flow_sigmas",
    ):
        settings.require(key, False, sampler=NAME)
    settings.require("use_dynamic_shifting", False, sampler=NAME)


def _refuse_equal_levels(grid: SigmaGrid) -> None:
    """The extrapolation in log sigma divides by the distance between two levels of noise."""
    levels = grid.sigmas[:-1]
    if any(before <= after for before, after in pairwise(levels)):
        raise ScheduleError(
            f"expected noise levels that fall with every step of sampler {NAME!r}, got equal ones for "
            f"{len(levels)} steps: use fewer steps"
        )


def _whole(grid: SigmaGrid, schedule: NoiseSchedule) -> SigmaGrid:
    """Whole timesteps for the model, at Karras' levels too: rounded, but cut off with the cosine schedule."""
    cosine = schedule.settings.get("beta_schedule", "linear") == "squaredcos_cap_v2"
    whole = np.trunc(grid.timesteps) if cosine else np.round(grid.timesteps)
    return SigmaGrid(tuple(whole.tolist()), grid.sigmas)


def _first_order_at_end(schedule: NoiseSchedule, grid: SigmaGrid) -> bool:
    settings = schedule.settings
    few = settings.flag("lower_order_final", default=True) and len(grid.timesteps) < FEW_STEPS
    euler_at_final = settings.flag("euler_at_final", default=False)
    return few or euler_at_final or grid.sigmas[-1] == 0  # there, log sigma has no end to extrapolate to


def _steps(
    model: Model, latent: Float32, schedule: NoiseSchedule, grid: SigmaGrid, window: range
) -> Iterator[Step]:
    first_order = len(grid.timesteps) - 1 if _first_order_at_end(schedule, grid) else None
    before: Float32 | None = None
    for index in window:
        timestep = grid.timesteps[index]
        output = model(latent, timestep)
        here = _level(grid.sigmas[index])
        estimate = denoised(output, latent, at=here, prediction=schedule.prediction)
        target = estimate
        if before is not None and index != first_order:
            target = _extrapolated(estimate, before, grid.sigmas[index - 1 : index + 2])
        latent = _first_order(latent, target, grid.sigmas[index], grid.sigmas[index + 1])
        before = estimate
        yield Step(index - window.start, len(window), timestep, latent, estimate)


def _first_order(latent: Float32, target: Float32, start: float, end: float) -> Float32:
    """Exact for a constant ``target``; the paper's ``exp(-h)`` is ``end / start``."""
    here, there = _level(start), _level(end)
    carried = there.sigma / here.sigma * latent
    return carried + there.alpha * (1 - end / start) * target


def _extrapolated(estimate: Float32, before: Float32, sigmas: tuple[float, ...]) -> Float32:
    """The estimate in the middle of the interval, in log sigma, on the line through the last two."""
    previous, start, end = sigmas
    ratio = math.log(start / end) / math.log(previous / start)
    return estimate + 0.5 * ratio * (estimate - before)


def _level(sigma: float) -> Level:
    return Level.variance_preserving(1 / (sigma**2 + 1))
