"""DDIM: deterministic at ``eta`` 0, as random as DDPM at 1.

Source: arXiv 2010.02502 (Denoising Diffusion Implicit Models), eq. 12 and 16; diffusers ``DDIMScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from sd_schedulers.clipping import CLIP_KEYS, THRESHOLD_KEYS, Clip, clip_of
from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32, Level, mix
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.spacing import SCHEDULE_KEYS, spaced_timesteps
from sd_schedulers.start import Span

KEYS = ConfigKeys(
    honoured=SCHEDULE_KEYS
    | CLIP_KEYS
    | THRESHOLD_KEYS
    | {"set_alpha_to_one", "steps_offset", "timestep_spacing", "rescale_betas_zero_snr"}
)


def ddim(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """First-order sampling in ``n`` evaluations; noise at each where ``eta`` is above 0.

    Like diffusers, it clips the estimate to ``clip_sample_range`` unless the config says
    ``"clip_sample": false``, as those of latent models should.

    Raises:
        ScheduleError: epsilon of a zero terminal SNR (it implies no image).
    """
    refuse_epsilon_without_signal(schedule)
    spaced = spaced_timesteps(schedule, span.count, default="leading").round().astype(int).tolist()
    window = span.window(spaced, schedule)
    timesteps = spaced[window.start : window.stop]
    latent = span.latent(at=_level(schedule, timesteps[0]))
    return _steps(model, latent, schedule, timesteps, span, clip_of(schedule.settings, clips=True))


def refuse_epsilon_without_signal(schedule: DDPMSchedule) -> None:
    """Where nothing of the image is left, its noise says nothing of it."""
    if schedule.zero_terminal_snr and schedule.prediction.name == "epsilon":
        raise ScheduleError(
            "expected prediction_type v_prediction or sample with rescale_betas_zero_snr, got epsilon"
        )


def _steps(
    model: Model,
    latent: Float32,
    schedule: DDPMSchedule,
    timesteps: list[int],
    span: Span,
    clip: Clip | None,
) -> Iterator[Step]:
    stride = schedule.num_train_timesteps // span.count
    prediction = schedule.prediction
    for index, timestep in enumerate(timesteps):
        here, there = _level(schedule, timestep), _level(schedule, timestep - stride)
        output = model(latent, timestep)
        estimate = prediction.denoised(output, latent, at=here)
        if clip is not None:
            estimate = clip(estimate)
        fresh = span.eta * _spread(here, there)
        kept = Level(there.alpha, math.sqrt(max(there.sigma**2 - fresh**2, 0)))
        latent = mix(estimate, prediction.noise(output, latent, at=here), at=kept)
        if span.eta > 0:
            latent = latent + fresh * span.fresh_noise()
        yield Step(index, len(timesteps), timestep, latent, estimate)


def _spread(here: Level, there: Level) -> float:
    """Standard deviation of DDPM's noise between two levels (eq. 16 with ``eta`` 1)."""
    return there.sigma / here.sigma * math.sqrt(max(1 - (here.alpha / there.alpha) ** 2, 0))


def _level(schedule: DDPMSchedule, timestep: int) -> Level:
    to_one = schedule.settings.flag("set_alpha_to_one", default=True)
    return Level.variance_preserving(schedule.alpha_cumprod(timestep, beyond=1.0 if to_one else None))


DDIM = Scheduler(
    name="ddim", diffusers="DDIMScheduler", keys=KEYS, forms=(DDPMSchedule,), sampler=ddim, eta=0.0
)
