"""Latent consistency models: jump to the clean latent, add fresh noise for the next, lower level.

Source: arXiv 2310.04378 (Latent Consistency Models), algorithm 3; diffusers ``LCMScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sd_schedulers.errors import ScheduleError
from sd_schedulers.parametrisation import Level, denoised, mix
from sd_schedulers.sampling import Model, Step
from sd_schedulers.schedule import Float32, NoiseSchedule
from sd_schedulers.start import Draw, FromImage, FromNoise, Span

#: Standard deviation of the data in the boundary conditions (section 4.2).
SIGMA_DATA = 0.5


def lcm(model: Model, schedule: NoiseSchedule, span: Span) -> Iterator[Step]:
    """``n`` evaluations at timesteps that the model was distilled on.

    From an image, all ``n`` of them lie in the last ``strength`` of these timesteps, as in diffusers'
    ``LatentConsistencyModelImg2ImgPipeline``, instead of ``n * strength`` in the usual places.

    Raises:
        ScheduleError: more steps than the model was distilled on, ``thresholding``, or epsilon of a zero
            terminal SNR (it implies no image).
    """
    settings = schedule.settings
    settings.require("thresholding", False, sampler="lcm")
    if schedule.zero_terminal_snr and schedule.prediction == "epsilon":
        raise ScheduleError(
            "expected prediction_type v_prediction or sample with rescale_betas_zero_snr, got epsilon"
        )
    timesteps = _timesteps(schedule, span)
    window = _whole_if_from_image(span).window(timesteps, schedule)
    latent = span.latent(at=_level(schedule, timesteps[window.start]))
    return _steps(model, latent, schedule, timesteps, window, span.fresh_noise)


def _timesteps(schedule: NoiseSchedule, span: Span) -> list[int]:
    """``n`` of the timesteps of distillation, evenly spaced, descending from the noisiest one in reach."""
    total = schedule.num_train_timesteps
    trained = schedule.settings.count("original_inference_steps", 50, low=1, high=total)
    strength = span.start.strength if isinstance(span.start, FromImage) else 1.0
    reached = int(trained * strength)
    if span.count > reached:
        raise ScheduleError(
            f"expected at most {reached} steps for lcm (original_inference_steps {trained}, strength "
            f"{strength}), got {span.count}: use fewer steps or a larger strength"
        )
    distilled = np.arange(1, reached + 1)[::-1] * (total // trained) - 1
    chosen = np.floor(np.linspace(0, reached, span.count, endpoint=False)).astype(int)
    timesteps: list[int] = distilled[chosen].tolist()
    return timesteps


def _whole_if_from_image(span: Span) -> Span:
    """The strength has shortened the timesteps already."""
    return replace(span, start=FromNoise(span.start.noise)) if isinstance(span.start, FromImage) else span


def _steps(
    model: Model,
    latent: Float32,
    schedule: NoiseSchedule,
    timesteps: list[int],
    window: range,
    fresh_noise: Draw,
) -> Iterator[Step]:
    for index in window:
        timestep = timesteps[index]
        output = model(latent, timestep)
        estimate = _consistent(output, latent, timestep, schedule)
        latent = estimate
        if index + 1 < len(timesteps):
            latent = mix(estimate, fresh_noise(), at=_level(schedule, timesteps[index + 1]))
        yield Step(index - window.start, len(window), timestep, latent, estimate)


def _consistent(output: Float32, latent: Float32, timestep: int, schedule: NoiseSchedule) -> Float32:
    """The consistency function: the identity at timestep 0, the clean latent elsewhere (eq. 9)."""
    clean = denoised(output, latent, at=_level(schedule, timestep), prediction=schedule.prediction)
    if schedule.settings.flag("clip_sample", default=False):
        limit = schedule.settings.number("clip_sample_range", 1.0, low=0, high=1e10)
        clean = np.clip(clean, -limit, limit)
    scaled = timestep * schedule.settings.number("timestep_scaling", 10.0, low=0, high=1e10)
    skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
    return scaled / math.hypot(scaled, SIGMA_DATA) * clean + skip * latent


def _level(schedule: NoiseSchedule, timestep: int) -> Level:
    return Level.variance_preserving(schedule.alpha_cumprod(timestep))
