"""DDIM, deterministic (eta = 0).

Source: arXiv 2010.02502 (Denoising Diffusion Implicit Models), eq. 12; diffusers ``DDIMScheduler``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sd_schedulers.errors import ScheduleError
from sd_schedulers.parametrisation import Level, denoised, mix
from sd_schedulers.parametrisation import noise as noise_of
from sd_schedulers.sampling import Model, Step
from sd_schedulers.schedule import Float32, NoiseSchedule
from sd_schedulers.spacing import spaced_timesteps
from sd_schedulers.start import Span


def ddim(model: Model, schedule: NoiseSchedule, span: Span) -> Iterator[Step]:
    """First-order sampling in ``n`` evaluations.

    Like diffusers, it clips the estimate to ``clip_sample_range`` unless the config says
    ``"clip_sample": false``, as those of latent models should.

    Raises:
        ScheduleError: ``thresholding`` is asked for, or epsilon of a zero terminal SNR (it implies no image).
    """
    settings = schedule.settings
    settings.require("thresholding", False, sampler="ddim")
    if schedule.zero_terminal_snr and schedule.prediction == "epsilon":
        raise ScheduleError(
            "expected prediction_type v_prediction or sample with rescale_betas_zero_snr, got epsilon"
        )
    clips = settings.flag("clip_sample", default=True)
    limit = settings.number("clip_sample_range", 1.0, low=0, high=1e10) if clips else None
    timesteps = spaced_timesteps(schedule, span.count, default="leading").round().astype(int).tolist()
    stride = schedule.num_train_timesteps // span.count
    window = span.window(timesteps, schedule)
    latent = span.latent(at=_level(schedule, timesteps[window.start]))
    return _steps(model, latent, schedule, timesteps[window.start : window.stop], stride, limit)


def _steps(
    model: Model,
    latent: Float32,
    schedule: NoiseSchedule,
    timesteps: list[int],
    stride: int,
    limit: float | None,
) -> Iterator[Step]:
    prediction = schedule.prediction
    for index, timestep in enumerate(timesteps):
        here, there = _level(schedule, timestep), _level(schedule, timestep - stride)
        output = model(latent, timestep)
        estimate = denoised(output, latent, at=here, prediction=prediction)
        if limit is not None:
            estimate = np.clip(estimate, -limit, limit)
        latent = mix(estimate, noise_of(output, latent, at=here, prediction=prediction), at=there)
        yield Step(index, len(timesteps), timestep, latent, estimate)


def _level(schedule: NoiseSchedule, timestep: int) -> Level:
    to_one = schedule.settings.flag("set_alpha_to_one", default=True)
    return Level.variance_preserving(schedule.alpha_cumprod(timestep, beyond=1.0 if to_one else None))
