"""DDPM: ancestral sampling from the posterior of the forward process.

Source: arXiv 2006.11239 (Denoising Diffusion Probabilistic Models), eq. 7; diffusers ``DDPMScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from sd_schedulers.clipping import CLIP_KEYS, THRESHOLD_KEYS, Clip, clip_of
from sd_schedulers.ddim import refuse_epsilon_without_signal
from sd_schedulers.prediction import Float32, Level
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.spacing import SCHEDULE_KEYS, spaced_timesteps
from sd_schedulers.start import Draw, Span

VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large")
#: Below this, diffusers takes a variance for 0.
SMALLEST_VARIANCE = 1e-20

KEYS = ConfigKeys(
    honoured=SCHEDULE_KEYS
    | CLIP_KEYS
    | THRESHOLD_KEYS
    | {"steps_offset", "timestep_spacing", "rescale_betas_zero_snr"},
    # Networks of "learned" variances have twice the outputs; "fixed_large_log" takes a root of a logarithm.
    limited={"variance_type": VARIANCES},
)


def ddpm(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """First-order sampling in ``n`` evaluations, noise at each but one at timestep 0.

    Raises:
        ScheduleError: epsilon of a zero terminal SNR (it implies no image).
    """
    refuse_epsilon_without_signal(schedule)
    timesteps = span.timesteps or tuple(
        spaced_timesteps(schedule, span.count, default="leading").round().astype(int).tolist()
    )
    window = span.window(timesteps, schedule)
    latent = span.latent(at=Level.variance_preserving(schedule.alpha_cumprod(timesteps[window.start])))
    clip = clip_of(schedule.settings, clips=True)
    large = schedule.settings.choice("variance_type", "fixed_small", VARIANCES) == "fixed_large"
    return _steps(model, latent, schedule, (*timesteps, -1), window, span.fresh_noise, clip, large=large)


def _steps(
    model: Model,
    latent: Float32,
    schedule: DDPMSchedule,
    timesteps: tuple[int, ...],
    window: range,
    fresh_noise: Draw,
    clip: Clip | None,
    *,
    large: bool,
) -> Iterator[Step]:
    for index in window:
        timestep = timesteps[index]
        signal = schedule.alpha_cumprod(timestep)
        signal_after = schedule.alpha_cumprod(timesteps[index + 1], beyond=1.0)
        output = model(latent, timestep)
        estimate = schedule.prediction.denoised(output, latent, at=Level.variance_preserving(signal))
        if clip is not None:
            estimate = clip(estimate)
        beta = 1 - signal / signal_after
        to_clean = math.sqrt(signal_after) * beta / (1 - signal)
        to_latent = math.sqrt(1 - beta) * (1 - signal_after) / (1 - signal)
        latent = to_clean * estimate + to_latent * latent
        if timestep > 0:
            small = max((1 - signal_after) / (1 - signal) * beta, SMALLEST_VARIANCE)
            latent = latent + math.sqrt(beta if large else small) * fresh_noise()
        yield Step(index - window.start, len(window), timestep, latent, estimate)


DDPM = Scheduler(
    name="ddpm",
    diffusers="DDPMScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=ddpm,
    takes_timesteps=True,
)
