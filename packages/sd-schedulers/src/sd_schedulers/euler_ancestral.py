"""Euler's method with ancestral noise: a step beyond the next noise level, and fresh noise back up to it.

Source: k-diffusion, ``sample_euler_ancestral``; diffusers ``EulerAncestralDiscreteScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sd_schedulers.euler import euler_timesteps, initial_scale
from sd_schedulers.parametrisation import Level, denoised
from sd_schedulers.sampling import Model, Step
from sd_schedulers.schedule import Float32, NoiseSchedule
from sd_schedulers.spacing import SigmaGrid
from sd_schedulers.start import Draw, Span


def euler_ancestral(model: Model, schedule: NoiseSchedule, span: Span) -> Iterator[Step]:
    """First-order sampling in ``n`` evaluations, noise at each. The latent is ``x_0 + sigma noise``.

    Like diffusers' class, it knows one sigma schedule: what a config says of Karras' or of the final sigma is
    for other samplers.
    """
    timesteps = euler_timesteps(schedule, span.count)
    table = schedule.sigmas()
    sigmas = np.append(np.interp(timesteps, np.arange(len(table)), table), 0).astype(np.float32)
    grid = SigmaGrid(tuple(timesteps.tolist()), tuple(sigmas.tolist()))
    window = span.window(grid.timesteps, schedule)
    level = Level(alpha=1.0, sigma=grid.sigmas[window.start])
    latent = span.latent(at=level, scale=initial_scale(schedule, max(grid.sigmas)))
    return _steps(model, latent, schedule, grid, window, span.fresh_noise)


def _steps(
    model: Model,
    latent: Float32,
    schedule: NoiseSchedule,
    grid: SigmaGrid,
    window: range,
    fresh_noise: Draw,
) -> Iterator[Step]:
    for index in window:
        here, end = Level(alpha=1.0, sigma=grid.sigmas[index]), grid.sigmas[index + 1]
        output = model(latent / math.sqrt(here.power), grid.timesteps[index])
        estimate = denoised(output, latent, at=here, prediction=schedule.prediction)
        down, up = _split(here.sigma, end)
        latent = estimate + down / here.sigma * (latent - estimate) + up * fresh_noise()
        yield Step(index - window.start, len(window), grid.timesteps[index], latent, estimate)


def _split(start: float, end: float) -> tuple[float, float]:
    """``(down, up)`` with ``down**2 + up**2 = end**2``: as much noise as the reverse process has there."""
    up = math.sqrt(end**2 * (start**2 - end**2) / start**2)
    return math.sqrt(end**2 - up**2), up
