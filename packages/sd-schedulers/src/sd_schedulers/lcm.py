"""Latent consistency models: jump to the clean latent, add fresh noise for the next, lower level.

Source: arXiv 2310.04378 (Latent Consistency Models), algorithm 3; diffusers ``LCMScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from sd_schedulers.clipping import CLIP_KEYS, THRESHOLD_KEYS, Clip, clip_of
from sd_schedulers.ddim import refuse_epsilon_without_signal
from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32, Level, mix
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.spacing import SCHEDULE_KEYS
from sd_schedulers.start import Draw, FromImage, FromNoise, Span

#: Standard deviation of the data in the boundary conditions (section 4.2).
SIGMA_DATA: Final = 0.5

_DISTILLED = "the timesteps are those of the distillation"
#: What diffusers' classes for distilled models take from DDIM's constructor and do not read.
UNREAD: Final = {
    "timestep_spacing": _DISTILLED,
    "steps_offset": _DISTILLED,
    "set_alpha_to_one": "no step ends below timestep 0",
}

KEYS = ConfigKeys(
    honoured=SCHEDULE_KEYS
    | CLIP_KEYS
    | THRESHOLD_KEYS
    | {"original_inference_steps", "timestep_scaling", "rescale_betas_zero_snr"},
    without_effect=UNREAD,
)


def lcm(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    """``n`` evaluations at timesteps that the model was distilled on.

    From an image, all ``n`` of them lie in the last ``strength`` of these timesteps, as in diffusers'
    ``LatentConsistencyModelImg2ImgPipeline``, instead of ``n * strength`` in the usual places.

    Raises:
        ScheduleError: more steps than the model was distilled on, or epsilon of a zero terminal SNR (it
            implies no image).
    """
    refuse_epsilon_without_signal(schedule)
    timesteps = distilled_timesteps(schedule, span, "lcm")
    window = whole_if_from_image(span).window(timesteps, schedule)
    latent = span.latent(at=_level(schedule, timesteps[window.start]))
    clip = clip_of(schedule.settings, clips=False)
    scaling = schedule.settings.number("timestep_scaling", 10.0, low=0, high=1e10)
    return _steps(model, latent, schedule, timesteps, window, span.fresh_noise, clip, scaling)


def distilled_timesteps(schedule: DDPMSchedule, span: Span, name: str) -> list[int]:
    """``n`` of the timesteps of distillation, evenly spaced, descending from the noisiest one in reach.

    Raises:
        ScheduleError: there are fewer than ``n`` in reach.
    """
    if span.timesteps is not None:
        return _given(span.timesteps, span)
    total = schedule.num_train_timesteps
    trained = schedule.settings.count("original_inference_steps", 50, low=1, high=total)
    strength = span.start.strength if isinstance(span.start, FromImage) else 1.0
    reached = int(trained * strength)
    if span.count > reached:
        raise ScheduleError(
            f"expected at most {reached} steps for {name} (original_inference_steps {trained}, strength "
            f"{strength}), got {span.count}: use fewer steps or a larger strength"
        )
    distilled = np.arange(1, reached + 1)[::-1] * (total // trained) - 1
    chosen = np.floor(np.linspace(0, reached, span.count, endpoint=False)).astype(int)
    timesteps: list[int] = distilled[chosen].tolist()
    return timesteps


def _given(timesteps: tuple[int, ...], span: Span) -> list[int]:
    """Of given timesteps, the last ``strength`` of them."""
    if not isinstance(span.start, FromImage):
        return list(timesteps)
    return list(timesteps[len(timesteps) - span.kept(span.start.strength) :])


def whole_if_from_image(span: Span) -> Span:
    """The strength has shortened the timesteps already."""
    return replace(span, start=FromNoise(span.start.noise)) if isinstance(span.start, FromImage) else span


def _steps(
    model: Model,
    latent: Float32,
    schedule: DDPMSchedule,
    timesteps: list[int],
    window: range,
    fresh_noise: Draw,
    clip: Clip | None,
    scaling: float,
) -> Iterator[Step]:
    for index in window:
        timestep = timesteps[index]
        output = model(latent, timestep)
        clean = schedule.prediction.denoised(output, latent, at=_level(schedule, timestep))
        estimate = _consistent(clean if clip is None else clip(clean), latent, timestep * scaling)
        latent = estimate
        if index + 1 < len(timesteps):
            latent = mix(estimate, fresh_noise(), at=_level(schedule, timesteps[index + 1]))
        yield Step(index - window.start, len(window), timestep, latent, estimate)


def _consistent(clean: Float32, latent: Float32, scaled: float) -> Float32:
    """The consistency function: the identity at timestep 0, the clean latent elsewhere (eq. 9)."""
    skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
    return scaled / math.hypot(scaled, SIGMA_DATA) * clean + skip * latent


def _level(schedule: DDPMSchedule, timestep: int) -> Level:
    return Level.variance_preserving(schedule.alpha_cumprod(timestep))


LCM = Scheduler(
    name="lcm",
    diffusers="LCMScheduler",
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=lcm,
    takes_timesteps=True,
)
