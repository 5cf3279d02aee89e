"""Heun's method: Euler's step, a second look at its end, and the mean of the two slopes.

Source: arXiv 2206.00364 (EDM), algorithm 1; diffusers ``HeunDiscreteScheduler``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from sd_schedulers.clipping import CLIP_KEYS, Clip, clip_of
from sd_schedulers.prediction import Float32, divided
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule
from sd_schedulers.settings import ConfigKeys, Settings
from sd_schedulers.sigma_space import LEVEL_KEYS, evaluate, evaluations, initial_latent, level_grid, towards
from sd_schedulers.spacing import SigmaGrid
from sd_schedulers.start import Span

KEYS = ConfigKeys(honoured=LEVEL_KEYS | CLIP_KEYS, limited={"rescale_betas_zero_snr": (False,)})


def heun(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """Second-order sampling in ``2 n - 1`` evaluations. The latent is ``x_0 + sigma noise``."""
    grid = level_grid(schedule, span)
    window = span.window(grid.timesteps, schedule)
    clip = clip_of(Settings({**schedule.settings.values, "thresholding": False}), clips=False)
    return _steps(model, initial_latent(schedule, span, grid, window), schedule, grid, window, clip)


def _steps(
    model: Model, latent: Float32, schedule: DDPMSchedule, grid: SigmaGrid, window: range, clip: Clip | None
) -> Iterator[Step]:
    def estimated(latent: Float32, index: int) -> Float32:
        estimate = evaluate(model, schedule, latent, grid.sigmas[index], grid.timesteps[index])
        return estimate if clip is None else clip(estimate)

    total, number = evaluations(window, len(grid.timesteps)), count()
    for index in window:
        here, there = grid.sigmas[index : index + 2]
        estimate = estimated(latent, index)
        ahead = towards(latent, estimate, here, there)
        yield Step(next(number), total, grid.timesteps[index], ahead, estimate)
        if there == 0:
            continue
        corrected = estimated(ahead, index + 1)
        slope = divided(latent - estimate, 2 * here) + divided(ahead - corrected, 2 * there)
        latent = latent + slope * (there - here)
        yield Step(next(number), total, grid.timesteps[index + 1], latent, corrected)


HEUN = Scheduler(
    name="heun",
    diffusers="HeunDiscreteScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=heun,
    aliases=("HeunDiscrete",),
    takes_timesteps=True,
    takes_sigmas=True,
)
