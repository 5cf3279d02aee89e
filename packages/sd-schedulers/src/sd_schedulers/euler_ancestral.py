"""Euler's method with ancestral noise: a step beyond the next noise level, and fresh noise back up to it.

Source: k-diffusion, ``sample_euler_ancestral``; diffusers ``EulerAncestralDiscreteScheduler``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sd_schedulers.prediction import Float32
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.sigma_space import ancestral, evaluate, initial_latent, level_timesteps
from sd_schedulers.spacing import SCHEDULE_KEYS, SigmaGrid
from sd_schedulers.start import Draw, Span

KEYS = ConfigKeys(honoured=SCHEDULE_KEYS | {"timestep_spacing", "steps_offset", "rescale_betas_zero_snr"})


def euler_ancestral(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """First-order sampling in ``n`` evaluations, noise at each. The latent is ``x_0 + sigma noise``.

    Like diffusers' class, it knows one sigma schedule: what a config says of Karras' or of the final sigma is
    for other schedulers.
    """
    timesteps, table = level_timesteps(schedule, span), schedule.sigmas()
    grid = SigmaGrid.of(timesteps, np.interp(timesteps, np.arange(len(table)), table), 0.0)
    window = span.window(grid.timesteps, schedule)
    latent = initial_latent(schedule, span, grid, window)
    return _steps(model, latent, schedule, grid, window, span.fresh_noise)


def _steps(
    model: Model, latent: Float32, schedule: DDPMSchedule, grid: SigmaGrid, window: range, fresh_noise: Draw
) -> Iterator[Step]:
    for index in window:
        here, there = grid.sigmas[index : index + 2]
        estimate = evaluate(model, schedule, latent, here, grid.timesteps[index])
        down, up = ancestral(here, there)
        latent = estimate + down / here * (latent - estimate) + up * fresh_noise()
        yield Step(index - window.start, len(window), grid.timesteps[index], latent, estimate)


EULER_ANCESTRAL = Scheduler(
    name="euler_ancestral",
    diffusers="EulerAncestralDiscreteScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=euler_ancestral,
    aliases=("EulerAncestralDiscrete", "euler_a", "ead"),
)
