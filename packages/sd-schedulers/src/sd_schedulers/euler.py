"""Euler's method on the probability-flow ODE, in noise levels.

Source: arXiv 2206.00364 (Elucidating the Design Space of Diffusion-Based Generative Models), algorithm 2
without churn and correction; diffusers ``EulerDiscreteScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sd_schedulers.parametrisation import Level, denoised
from sd_schedulers.sampling import Model, Step
from sd_schedulers.schedule import Float32, NoiseSchedule
from sd_schedulers.spacing import Float64, SigmaGrid, sigma_grid, spaced_timesteps
from sd_schedulers.start import Span


def euler(model: Model, schedule: NoiseSchedule, span: Span) -> Iterator[Step]:
    """First-order sampling in ``n`` evaluations. The latent is ``x_0 + sigma noise``.

    Raises:
        ScheduleError: the config asks for another interpolation, timestep type or sigma schedule.
    """
    settings = schedule.settings
    settings.require("interpolation_type", "linear", sampler="euler")
    settings.require("timestep_type", "discrete", sampler="euler")
    settings.require("use_exponential_sigmas", False, sampler="euler")
    settings.require("use_beta_sigmas", False, sampler="euler")
    timesteps = euler_timesteps(schedule, span.count)
    ends = np.interp(timesteps[[0, -1]], np.arange(schedule.num_train_timesteps), schedule.sigmas())
    grid = sigma_grid(schedule, timesteps, span=(ends[0], ends[1]))
    window = span.window(grid.timesteps, schedule)
    level = Level(alpha=1.0, sigma=grid.sigmas[window.start])
    latent = span.latent(at=level, scale=initial_scale(schedule, max(grid.sigmas)))
    return _steps(model, latent, schedule, grid, window)


def euler_timesteps(schedule: NoiseSchedule, count: int) -> Float64:
    """Timesteps that may be fractions, in float32 as diffusers hands them to the network."""
    timesteps = spaced_timesteps(schedule, count, default="linspace")
    return timesteps.astype(np.float32).astype(np.float64)


def initial_scale(schedule: NoiseSchedule, sigma: float) -> float:
    """Standard deviation to start from; diffusers adds the data's own variance for ``leading`` only."""
    leading = schedule.settings.get("timestep_spacing", "linspace") == "leading"
    return math.hypot(sigma, 1) if leading else sigma


def _steps(
    model: Model, latent: Float32, schedule: NoiseSchedule, grid: SigmaGrid, window: range
) -> Iterator[Step]:
    levels = [Level(alpha=1.0, sigma=sigma) for sigma in grid.sigmas]
    timesteps = np.asarray(grid.timesteps, np.float32).tolist()
    for index in window:
        timestep, here, there = timesteps[index], levels[index], levels[index + 1]
        output = model(latent / math.sqrt(here.power), timestep)
        estimate = denoised(output, latent, at=here, prediction=schedule.prediction)
        slope = (latent - estimate) / here.sigma
        latent = latent + slope * (there.sigma - here.sigma)
        yield Step(index - window.start, len(window), timestep, latent, estimate)
