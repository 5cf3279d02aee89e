"""Trajectory consistency: jump along the trajectory to a level between, add fresh noise up to the next one.

Source: arXiv 2402.19159 (Trajectory Consistency Distillation), algorithm 4, gamma there is ``eta`` here;
diffusers ``TCDScheduler``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sd_schedulers.clipping import CLIP_KEYS, THRESHOLD_KEYS
from sd_schedulers.ddim import refuse_epsilon_without_signal
from sd_schedulers.lcm import UNREAD, distilled_timesteps, whole_if_from_image
from sd_schedulers.prediction import Float32, Level, mix
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.spacing import SCHEDULE_KEYS
from sd_schedulers.start import Span

KEYS = ConfigKeys(
    honoured=SCHEDULE_KEYS | {"original_inference_steps", "rescale_betas_zero_snr"},
    without_effect={
        **UNREAD,
        "timestep_scaling": "only LCM's boundary conditions read it",
        **dict.fromkeys(CLIP_KEYS | THRESHOLD_KEYS, "diffusers' class has the key and clips nothing"),
    },
)


def tcd(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """``n`` evaluations at timesteps of the distillation; noise at all but the last if ``eta`` is above 0.

    From an image as :func:`~sd_schedulers.lcm.lcm`.

    Raises:
        ScheduleError: more steps than the model was distilled on, or epsilon of a zero terminal SNR (it
            implies no image).
    """
    refuse_epsilon_without_signal(schedule)
    timesteps = distilled_timesteps(schedule, span, "tcd")
    window = whole_if_from_image(span).window(timesteps, schedule)
    signal = schedule.alpha_cumprod(timesteps[window.start])
    latent = span.latent(at=Level.variance_preserving(signal))
    return _steps(model, latent, schedule, timesteps, window, span)


def _steps(
    model: Model, latent: Float32, schedule: DDPMSchedule, timesteps: list[int], window: range, span: Span
) -> Iterator[Step]:
    prediction = schedule.prediction
    for index in window:
        timestep = timesteps[index]
        after = timesteps[index + 1] if index + 1 < len(timesteps) else 0
        # In float32 as torch has it, since the fraction is cut off: 0.7 of 730 is 511.
        between = schedule.alpha_cumprod(int(np.float32(1 - span.eta) * np.float32(after)))
        here = Level.variance_preserving(schedule.alpha_cumprod(timestep))
        output = model(latent, timestep)
        estimate = prediction.denoised(output, latent, at=here)
        noise = prediction.noise(output, latent, at=here)
        latent = mix(estimate, noise, at=Level.variance_preserving(between))
        if span.eta > 0 and index + 1 < len(timesteps):
            kept = Level.variance_preserving(min(schedule.alpha_cumprod(after) / between, 1))
            latent = mix(latent, span.fresh_noise(), at=kept)
        yield Step(index - window.start, len(window), timestep, latent, estimate)


TCD = Scheduler(
    name="tcd",
    diffusers="TCDScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=tcd,
    eta=0.3,
    takes_timesteps=True,
)
