"""DPM-Solver-2 in noise levels: half a step (in log sigma), a look there, and the whole step with that slope.

Source: k-diffusion, ``sample_dpm_2`` and ``sample_dpm_2_ancestral``, after arXiv 2206.00364 (EDM), algorithm
2; diffusers ``KDPM2DiscreteScheduler`` and ``KDPM2AncestralDiscreteScheduler``.
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
    limited={"prediction_type": ("epsilon", "v_prediction"), "rescale_betas_zero_snr": (False,)},
)


def dpm_2(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """Second-order sampling in ``2 n - 1`` evaluations. The latent is ``x_0 + sigma noise``."""
    return _start(model, schedule, span, None)


def dpm_2_ancestral(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """The same beyond the next noise level, and fresh noise back up to it: ``n - 1`` arrays."""
    return _start(model, schedule, span, span.fresh_noise)


def _start(model: Model, schedule: DDPMSchedule, span: Span, fresh_noise: Draw | None) -> Iterator[Step]:
    grid = level_grid(schedule, span, rounds_karras=True)
    window = span.window(grid.timesteps, schedule)
    latent = initial_latent(schedule, span, grid, window)
    return _steps(model, latent, schedule, grid, window, fresh_noise)


def _steps(
    model: Model,
    latent: Float32,
    schedule: DDPMSchedule,
    grid: SigmaGrid,
    window: range,
    fresh_noise: Draw | None,
) -> Iterator[Step]:
    total, number = evaluations(window, len(grid.timesteps)), count()
    for index in window:
        here, there = grid.sigmas[index : index + 2]
        end, up = (there, 0.0) if fresh_noise is None else ancestral(here, there)
        middle = math.sqrt(here * end)
        estimate = evaluate(model, schedule, latent, here, grid.timesteps[index])
        halfway = towards(latent, estimate, here, middle)
        yield Step(next(number), total, grid.timesteps[index], halfway, estimate)
        if there == 0:
            continue
        timestep = schedule.timestep(middle)
        estimate = evaluate(model, schedule, halfway, middle, timestep)
        latent = latent + (halfway - estimate) / middle * (end - here)
        if fresh_noise is not None:
            latent = latent + up * fresh_noise()
        yield Step(next(number), total, timestep, latent, estimate)


DPM_2 = Scheduler(
    name="dpm_2",
    diffusers="KDPM2DiscreteScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=dpm_2,
    aliases=("KDPM2Discrete",),
)
DPM_2_ANCESTRAL = Scheduler(
    name="dpm_2_ancestral",
    diffusers="KDPM2AncestralDiscreteScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=dpm_2_ancestral,
    aliases=("KDPM2AncestralDiscrete", "dpm_2_a"),
)
