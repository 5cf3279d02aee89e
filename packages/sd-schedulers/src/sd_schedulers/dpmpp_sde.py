"""DPM-Solver++ (SDE): the ancestral single step of second order, with noise from one Brownian path.

Source: k-diffusion, ``sample_dpmpp_sde``, after arXiv 2211.01095 (DPM-Solver++); diffusers
``DPMSolverSDEScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

from sd_schedulers.prediction import Float32
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.sigma_space import (
    LEVEL_KEYS,
    ancestral,
    evaluate,
    evaluations,
    initial_latent,
    level_grid,
    towards,
)
from sd_schedulers.spacing import SigmaGrid
from sd_schedulers.start import Draw, Span

KEYS = ConfigKeys(
    honoured=LEVEL_KEYS - {"prediction_type"},
    limited={
        "prediction_type": ("epsilon", "v_prediction"),
        "rescale_betas_zero_snr": (False,),
        "noise_sampler_seed": (),  # noise is passed in, so a seed of the config's own would go unheard
    },
)


def dpmpp_sde(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """Second-order sampling in ``2 n - 1`` evaluations, noise at each but the last.

    The two noises of a step belong to one Brownian path in ``sigma``, so the second is the first and a fresh
    one, weighted by how far each half goes.
    """
    grid = level_grid(schedule, span, bounded=False)
    window = span.window(grid.timesteps, schedule)
    latent = initial_latent(schedule, span, grid, window)
    return _steps(model, latent, schedule, grid, window, span.fresh_noise)


def _steps(
    model: Model, latent: Float32, schedule: DDPMSchedule, grid: SigmaGrid, window: range, fresh_noise: Draw
) -> Iterator[Step]:
    total, number = evaluations(window, len(grid.timesteps)), count()
    for index in window:
        here, there = grid.sigmas[index : index + 2]
        estimate = evaluate(model, schedule, latent, here, grid.timesteps[index])
        if there == 0:
            yield Step(
                next(number), total, grid.timesteps[index], towards(latent, estimate, here, 0), estimate
            )
            continue
        middle, noise = math.sqrt(here * there), fresh_noise()
        halfway = _ancestral_step(latent, estimate, noise, here, middle)
        yield Step(next(number), total, grid.timesteps[index], halfway, estimate)
        timestep = schedule.timestep(middle)
        estimate = evaluate(model, schedule, halfway, middle, timestep)
        share = (here - middle) / (here - there)
        noise = math.sqrt(share) * noise + math.sqrt(1 - share) * fresh_noise()
        latent = _ancestral_step(latent, estimate, noise, here, there)
        yield Step(next(number), total, timestep, latent, estimate)


def _ancestral_step(latent: Float32, estimate: Float32, noise: Float32, start: float, end: float) -> Float32:
    down, up = ancestral(start, end)
    ended: Float32 = estimate + down / start * (latent - estimate) + up * noise
    return ended


DPMPP_SDE = Scheduler(
    name="dpmpp_sde",
    diffusers="DPMSolverSDEScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=dpmpp_sde,
    aliases=("DPMSolverSDE",),
)
