"""LMS: the slopes of up to four steps, as the polynomial through them, integrated to the next noise level.

Source: k-diffusion, ``sample_lms`` (Adams-Bashforth of uneven steps); diffusers ``LMSDiscreteScheduler``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from sd_schedulers.prediction import Float32
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.sigma_space import LEVEL_KEYS, evaluate, initial_latent, level_grid
from sd_schedulers.spacing import Float64, SigmaGrid
from sd_schedulers.start import Span

ORDER: Final = 4

KEYS = ConfigKeys(honoured=LEVEL_KEYS, limited={"rescale_betas_zero_snr": (False,)})


def lms(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """Fourth-order multistep sampling in ``n`` evaluations. The latent is ``x_0 + sigma noise``.

    Started in the middle, it begins at order 1, as k-diffusion does; diffusers weights the slopes that it has
    as if there were more of them.
    """
    grid = level_grid(schedule, span, bounded=False)
    window = span.window(grid.timesteps, schedule)
    return _steps(model, initial_latent(schedule, span, grid, window), schedule, grid, window)


def _steps(
    model: Model, latent: Float32, schedule: DDPMSchedule, grid: SigmaGrid, window: range
) -> Iterator[Step]:
    slopes: tuple[Float32, ...] = ()
    for index in window:
        here, timestep = grid.sigmas[index], grid.timesteps[index]
        estimate = evaluate(model, schedule, latent, here, timestep)
        slopes = ((latent - estimate) / here, *slopes[: ORDER - 1])
        past = np.array(grid.sigmas[index - len(slopes) + 1 : index + 1][::-1])
        weights = _integrals(past, here, grid.sigmas[index + 1])
        latent = latent + sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
        yield Step(index - window.start, len(window), timestep, latent, estimate)


def _integrals(nodes: Float64, start: float, end: float) -> list[float]:
    """Integral from ``start`` to ``end`` of each Lagrange polynomial of ``nodes``, exact by Gauss' rule."""
    points, weights = np.polynomial.legendre.leggauss(ORDER)
    points = (start + end) / 2 + (end - start) / 2 * points
    integrals = []
    for number, node in enumerate(nodes):
        others = np.delete(nodes, number)
        values = np.prod((points[:, None] - others) / (node - others), axis=1)
        integrals.append(float(weights @ values * (end - start) / 2))
    return integrals


LMS = Scheduler(
    name="lms",
    diffusers="LMSDiscreteScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=lms,
    aliases=("LMSDiscrete",),
)
