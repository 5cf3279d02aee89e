"""What the solvers of k-diffusion share: a latent of ``x_0 + sigma noise``, from one noise level to the next.

Source: arXiv 2206.00364 (EDM), eq. 3; k-diffusion, ``sampling.py``; diffusers' discrete classes of these.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32, Level
from sd_schedulers.sampling import Model
from sd_schedulers.schedule import DDPMSchedule, NoiseSchedule
from sd_schedulers.spacing import (
    SCHEDULE_KEYS,
    SIGMA_KEYS,
    Float64,
    SigmaGrid,
    respaced,
    spaced_timesteps,
)
from sd_schedulers.start import Span

#: Config keys that all of them honour.
LEVEL_KEYS: Final = SCHEDULE_KEYS | SIGMA_KEYS | {"timestep_spacing", "steps_offset"}


def level_timesteps(schedule: DDPMSchedule, span: Span) -> Float64:
    """Timesteps that may be fractions, in float32 as diffusers hands them to the network."""
    if span.timesteps is not None:
        return np.array(span.timesteps, np.float64)
    return spaced_timesteps(schedule, span.count, default="linspace").astype(np.float32).astype(np.float64)


def level_grid(
    schedule: DDPMSchedule, span: Span, *, bounded: bool = True, rounds_karras: bool = False
) -> SigmaGrid:
    """Noise levels at the timesteps, or respaced between the ends of these, and then 0; or the given ones.

    Raises:
        ScheduleError: given timesteps, and a config that respaces.
    """
    if span.sigmas is not None:
        return _given_grid(schedule, span.sigmas)
    timesteps = level_timesteps(schedule, span)
    table = schedule.sigmas()
    sigmas = np.interp(timesteps, np.arange(len(table)), table)
    other = respaced(
        schedule.settings, len(sigmas), sigma_max=sigmas[0], sigma_min=sigmas[-1], bounded=bounded
    )
    if other is None:
        return SigmaGrid.of(timesteps, sigmas, 0.0)
    refuse_given_timesteps(span)
    timesteps = schedule.timesteps_of(other)
    if rounds_karras and schedule.settings.flag("use_karras_sigmas", default=False):
        timesteps = timesteps.round()
    return SigmaGrid.of(timesteps, other, 0.0)


def _given_grid(schedule: DDPMSchedule, sigmas: tuple[float, ...]) -> SigmaGrid:
    levels = np.array(sigmas[:-1], np.float32).astype(np.float64)
    return SigmaGrid.of(schedule.timesteps_of(levels), levels, sigmas[-1])


def refuse_given_timesteps(span: Span) -> None:
    """Timesteps are given, or follow from noise levels, not both."""
    if span.timesteps is not None:
        raise ScheduleError(
            "expected timesteps without use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas and the "
            "like, which choose their own, got both: leave one out"
        )


def initial_latent(schedule: DDPMSchedule, span: Span, grid: SigmaGrid, window: range) -> Float32:
    """Where to start; diffusers adds the data's own variance to pure noise for ``leading`` only."""
    sigma = max(grid.sigmas)
    leading = schedule.settings.get("timestep_spacing", "linspace") == "leading"
    scale = math.hypot(sigma, 1) if leading else sigma
    return span.latent(at=Level(1.0, grid.sigmas[window.start]), scale=scale)


def evaluate(
    model: Model, schedule: NoiseSchedule, latent: Float32, sigma: float, timestep: float
) -> Float32:
    """The model's estimate of the clean latent."""
    at = Level(1.0, sigma)
    output = model(schedule.network_input(latent, at=at), timestep)
    return schedule.prediction.denoised(output, latent, at=at)


def towards(latent: Float32, estimate: Float32, sigma: float, end: float) -> Float32:
    """Euler's step along the line through the latent, at ``sigma``, and the estimate, at 0."""
    return latent + (latent - estimate) / sigma * (end - sigma)


def ancestral(start: float, end: float) -> tuple[float, float]:
    """``(down, up)`` with ``down**2 + up**2 = end**2``: as much noise as the reverse process has there."""
    up = math.sqrt(max(end**2 * (start**2 - end**2) / start**2, 0))
    return end**2 / start, up


def evaluations(window: range, steps: int) -> int:
    """How many evaluations two for each step of ``window`` are: the last of all ``steps`` takes one."""
    return 2 * len(window) - (window.stop == steps)
