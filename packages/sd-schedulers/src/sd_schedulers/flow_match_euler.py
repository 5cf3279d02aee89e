"""Euler's method along the straight lines of flow matching.

Source: arXiv 2403.03206 (Stable Diffusion 3), section 5.3.2; diffusers ``FlowMatchEulerDiscreteScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32, mix
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import FlowSchedule, NoiseSchedule
from sd_schedulers.settings import ConfigKeys, Settings
from sd_schedulers.spacing import SIGMA_KEYS, Float64, SigmaGrid, check_step_count, respaced, shifted
from sd_schedulers.start import Span

_READ_BY_FLOW_MU = "read by flow_mu, which makes the mu that is given"

KEYS = ConfigKeys(
    honoured=SIGMA_KEYS
    | {"num_train_timesteps", "shift", "use_dynamic_shifting"}
    | {"shift_terminal", "time_shift_type", "stochastic_sampling"},
    without_effect=dict.fromkeys(
        ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"), _READ_BY_FLOW_MU
    ),
    # Networks that run from picture to noise; other classes' word for the shift.
    limited={
        "prediction_type": ("flow_prediction",),
        "invert_sigmas": (False,),
        "flow_shift": (1.0,),
        "final_sigmas_type": ("zero",),
    },
)


def flow_match_euler(model: Model, schedule: FlowSchedule, span: Span) -> Iterator[Step]:
    """First-order sampling in ``n`` evaluations; noise at each with ``stochastic_sampling``.

    Raises:
        ScheduleError: ``use_dynamic_shifting`` without ``mu``, or settings that make no sense.
    """
    check_step_count(schedule, span.count)
    sigmas = _sigmas(schedule, span)
    grid = SigmaGrid.of(
        sigmas.astype(np.float32).astype(np.float64) * schedule.num_train_timesteps, sigmas, 0.0
    )
    window = span.window(grid.timesteps, schedule)
    latent = span.latent(at=schedule.level(grid.sigmas[window.start]))
    stochastic = schedule.settings.flag("stochastic_sampling", default=False)
    return _steps(model, latent, schedule, grid, window, span, stochastic=stochastic)


def _sigmas(schedule: FlowSchedule, span: Span) -> Float64:
    settings = schedule.settings
    dynamic = settings.flag("use_dynamic_shifting", default=False)
    if dynamic != (span.mu is not None):
        raise ScheduleError(
            f"expected mu with use_dynamic_shifting and only then, got mu {span.mu} and use_dynamic_shifting "
            f"{dynamic}: see flow_mu"
        )
    shift = settings.number("shift", 1.0, low=1e-6, high=1e6)
    least = 1 / schedule.num_train_timesteps
    # diffusers spaces between ends that are shifted already, and shifts all again.
    least = least if dynamic else float(shifted(np.array([least]), shift)[0])
    sigmas = np.linspace(1, least, span.count)
    sigmas = shifted(sigmas, shift) if span.mu is None else time_shifted(settings, sigmas, span.mu)
    sigmas = stretched(settings, sigmas)
    other = respaced(settings, span.count, sigma_max=sigmas[0], sigma_min=sigmas[-1])
    return sigmas if other is None else other


def time_shifted(settings: Settings, sigmas: Float64, mu: float) -> Float64:
    """Levels moved to more noise by ``exp(mu)``, or by ``mu`` itself where ``time_shift_type`` is linear.

    Raises:
        ScheduleError: a shift that is not above 0.
    """
    kind = settings.choice("time_shift_type", "exponential", ("exponential", "linear"))
    shift = math.exp(mu) if kind == "exponential" else mu
    if not shift > 0:
        raise ScheduleError(f"expected mu above 0 with time_shift_type 'linear', got {mu}")
    moved: Float64 = shift / (shift + (1 / sigmas - 1))
    return moved


def stretched(settings: Settings, sigmas: Float64) -> Float64:
    """Levels stretched away from 1 so that the last is the config's ``shift_terminal``, if it has one.

    Raises:
        ScheduleError: there is nothing to stretch (one step).
    """
    terminal = settings.number("shift_terminal", 0.0, low=0, high=0.999)
    if terminal == 0:
        return sigmas
    if sigmas[-1] >= 1:
        raise ScheduleError("expected two steps or more with shift_terminal, got one")
    # In this order of operations, as some schedulers cut off the timesteps that follow.
    kept: Float64 = 1 - (1 - sigmas) / ((1 - sigmas[-1]) / (1 - terminal))
    return kept


def _steps(
    model: Model,
    latent: Float32,
    schedule: FlowSchedule,
    grid: SigmaGrid,
    window: range,
    span: Span,
    *,
    stochastic: bool,
) -> Iterator[Step]:
    for index in window:
        here, there = (schedule.level(sigma) for sigma in grid.sigmas[index : index + 2])
        output = model(schedule.network_input(latent, at=here), grid.timesteps[index])
        estimate = schedule.prediction.denoised(output, latent, at=here)
        noise = span.fresh_noise() if stochastic else schedule.prediction.noise(output, latent, at=here)
        latent = mix(estimate, noise, at=there)
        yield Step(index - window.start, len(window), grid.timesteps[index], latent, estimate)


def flow_mu(schedule: NoiseSchedule, image_seq_len: int) -> float:
    """``mu`` for an image of so many tokens (patches of the latent), for ``use_dynamic_shifting``.

    The line through ``base_shift`` at ``base_image_seq_len`` and ``max_shift`` at ``max_image_seq_len``, as
    diffusers' pipelines compute it.
    """
    settings = schedule.settings
    base = settings.number("base_shift", 0.5, low=-100, high=100)
    top = settings.number("max_shift", 1.15, low=-100, high=100)
    few = settings.count("base_image_seq_len", 256, low=1, high=10**9)
    many = settings.count("max_image_seq_len", 4096, low=few + 1, high=10**9)
    return base + (top - base) / (many - few) * (image_seq_len - few)


FLOW_MATCH_EULER = Scheduler(
    name="flow_match_euler",
    diffusers="FlowMatchEulerDiscreteScheduler",
    keys=KEYS,
    forms=(FlowSchedule,),
    sampler=flow_match_euler,
    aliases=("FlowMatchEulerDiscrete",),
    takes_mu=True,
)
