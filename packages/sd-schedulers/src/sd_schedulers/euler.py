"""Euler's method on the probability-flow ODE, in noise levels.

Source: arXiv 2206.00364 (Elucidating the Design Space of Diffusion-Based Generative Models), algorithm 2
without churn and correction; diffusers ``EulerDiscreteScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sd_schedulers.prediction import Float32
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule, NoiseSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.sigma_space import (
    LEVEL_KEYS,
    evaluate,
    initial_latent,
    level_grid,
    level_timesteps,
    refuse_given_timesteps,
    towards,
)
from sd_schedulers.spacing import Float64, SigmaGrid, final_sigma, respaced
from sd_schedulers.start import Span

KEYS = ConfigKeys(
    honoured=LEVEL_KEYS
    | {"interpolation_type", "timestep_type", "rescale_betas_zero_snr", "final_sigmas_type"}
)


def euler(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """First-order sampling in ``n`` evaluations. The latent is ``x_0 + sigma noise``.

    Raises:
        ScheduleError: the config asks for two spacings of noise levels, or a setting makes no sense.
    """
    grid = _grid(schedule, span)
    window = span.window(grid.timesteps, schedule)
    latent = initial_latent(schedule, span, grid, window)
    continuous = schedule.settings.choice("timestep_type", "discrete", ("discrete", "continuous"))
    if continuous == "continuous" and schedule.prediction.name == "v_prediction":
        refuse_given_timesteps(span)
        grid = SigmaGrid(tuple(0.25 * math.log(sigma) for sigma in grid.sigmas[:-1]), grid.sigmas)
    return euler_steps(model, latent, schedule, grid, window)


def _grid(schedule: DDPMSchedule, span: Span) -> SigmaGrid:
    final = final_sigma(schedule.settings, schedule.sigmas())
    linear = schedule.settings.choice("interpolation_type", "linear", ("linear", "log_linear")) == "linear"
    grid = level_grid(schedule, span)
    if span.sigmas is not None:
        return grid
    if linear:
        return SigmaGrid(grid.timesteps, (*grid.sigmas[:-1], final))
    # One level more than timesteps, so that the last of them is where the last step ends.
    sigmas = _log_linear(schedule, span.count + 1)
    other = respaced(schedule.settings, span.count, sigma_max=sigmas[0], sigma_min=sigmas[-1])
    if other is None:
        return SigmaGrid.of(level_timesteps(schedule, span), sigmas[:-1], float(sigmas[-1]))
    return SigmaGrid.of(schedule.timesteps_of(other), other, final)


def _log_linear(schedule: DDPMSchedule, count: int) -> Float64:
    logs = np.log(schedule.sigmas())
    return np.exp(np.linspace(logs[-1], logs[0], count).astype(np.float32)).astype(np.float64)


def euler_steps(
    model: Model, latent: Float32, schedule: NoiseSchedule, grid: SigmaGrid, window: range
) -> Iterator[Step]:
    """The steps of ``window``; one evaluation and one straight line each."""
    timesteps = np.asarray(grid.timesteps, np.float32).tolist()
    for index in window:
        here, there = grid.sigmas[index : index + 2]
        estimate = evaluate(model, schedule, latent, here, timesteps[index])
        latent = towards(latent, estimate, here, there)
        yield Step(index - window.start, len(window), timesteps[index], latent, estimate)


EULER = Scheduler(
    name="euler",
    diffusers="EulerDiscreteScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=euler,
    aliases=("EulerDiscrete",),
    takes_timesteps=True,
    takes_sigmas=True,
)
