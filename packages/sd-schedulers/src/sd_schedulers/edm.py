"""EDM's own schedulers: Euler and DPM-Solver++ multistep for networks with its preconditioning.

Source: arXiv 2206.00364 (Elucidating the Design Space of Diffusion-Based Generative Models); diffusers
``EDMEulerScheduler`` and ``EDMDPMSolverMultistepScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sd_schedulers.clipping import THRESHOLD_KEYS, clip_of
from sd_schedulers.dpm_solver import Solver, multistep, refuse_equal_levels
from sd_schedulers.errors import ScheduleError
from sd_schedulers.euler import euler_steps
from sd_schedulers.prediction import Float32, Level
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import EDMSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.spacing import KARRAS_RHO, SigmaGrid, check_step_count, karras
from sd_schedulers.start import FromImage, Resumed, Span

_KEYS = frozenset(
    ("sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "prediction_type", "rho", "final_sigmas_type")
)
_TRAIN = {"num_train_timesteps": "the levels are spaced anew for every number of steps"}
EULER_KEYS = ConfigKeys(honoured=_KEYS, without_effect=_TRAIN)
SOLVER_KEYS = ConfigKeys(
    honoured=_KEYS | THRESHOLD_KEYS | {"solver_order", "algorithm_type", "solver_type", "lower_order_final"},
    without_effect={
        **_TRAIN,
        "euler_at_final": "the last step is of first order, or of no length, anyway",
    },
)


def edm_euler(model: Model, schedule: EDMSchedule, span: Span) -> Iterator[Step]:
    """First-order sampling in ``n`` evaluations.

    Raises:
        ScheduleError: a part of the schedule by timesteps, or settings that make no sense.
    """
    grid = _grid(schedule, span, ends_low=False)
    window = _window(schedule, span, grid)
    return euler_steps(model, _initial(schedule, span, grid, window), schedule, grid, window)


def edm_dpmpp_2m(model: Model, schedule: EDMSchedule, span: Span) -> Iterator[Step]:
    """Sampling of ``solver_order`` (2) in ``n`` evaluations; noise at each if the algorithm is an SDE.

    Raises:
        ScheduleError: as :func:`edm_euler`, or a solver that diffusers' class does not know.
    """
    solver = Solver.read(schedule.settings, lower_order_final=True)
    if solver.predicts_noise or (solver.is_stochastic and solver.order == 3):
        raise ScheduleError(
            "expected algorithm_type dpmsolver++, or sde-dpmsolver++ with solver_order 1 or 2, for "
            f"edm_dpmpp_2m, got {solver.algorithm!r} with {solver.order}"
        )
    grid = _grid(schedule, span, ends_low=True)
    refuse_equal_levels(grid, "edm_dpmpp_2m")
    window = _window(schedule, span, grid)
    latent = _initial(schedule, span, grid, window)
    clip = clip_of(schedule.settings)
    euler_at_final = schedule.settings.flag("euler_at_final", default=False)
    return multistep(
        model,
        latent,
        schedule,
        grid,
        window,
        solver,
        span.fresh_noise,
        clip=clip,
        euler_at_final=euler_at_final,
    )


def _grid(schedule: EDMSchedule, span: Span, *, ends_low: bool) -> SigmaGrid:
    settings = schedule.settings
    check_step_count(schedule, span.count)
    low = settings.number("sigma_min", 0.002, low=1e-10, high=1e10)
    high = settings.number("sigma_max", 80.0, low=low, high=1e10)
    if settings.choice("sigma_schedule", "karras", ("karras", "exponential")) == "karras":
        rho = settings.number("rho", KARRAS_RHO, low=1e-3, high=1e3)
        sigmas = karras(span.count, high, low, rho=rho)
    else:
        # diffusers spaces upwards, so that one step starts at the least noise
        sigmas = np.exp(np.linspace(math.log(low), math.log(high), span.count))[::-1]
    zero = settings.choice("final_sigmas_type", "zero", ("zero", "sigma_min")) == "zero"
    timesteps = np.array([schedule.timestep(sigma) for sigma in sigmas])
    return SigmaGrid.of(timesteps, sigmas, 0.0 if zero else low if ends_low else sigmas[-1])


def _window(schedule: EDMSchedule, span: Span, grid: SigmaGrid) -> range:
    if isinstance(span.start, Resumed) or span.end < 1:
        raise ScheduleError(
            "expected the whole schedule of an EDM model, or its end from an image, got a part by timesteps, "
            "which it does not have"
        )
    first = span.first(grid.timesteps, schedule) if isinstance(span.start, FromImage) else 0
    return range(first, len(grid.timesteps))


def _initial(schedule: EDMSchedule, span: Span, grid: SigmaGrid, window: range) -> Float32:
    scale = math.hypot(schedule.settings.number("sigma_max", 80.0, low=1e-10, high=1e10), 1)
    return span.latent(at=Level(1.0, grid.sigmas[window.start]), scale=scale)


EDM_EULER = Scheduler(
    name="edm_euler",
    diffusers="EDMEulerScheduler",
    keys=EULER_KEYS,
    forms=(EDMSchedule,),
    sampler=edm_euler,
    aliases=("EDMEuler",),
)
EDM_DPMPP_2M = Scheduler(
    name="edm_dpmpp_2m",
    diffusers="EDMDPMSolverMultistepScheduler",
    keys=SOLVER_KEYS,
    forms=(EDMSchedule,),
    sampler=edm_dpmpp_2m,
    aliases=("EDMDPMSolverMultistep",),
)
