"""How a picture's steps are spread over the noise: from settings to what the sampler is handed.

Names, choices and defaults are those of sd_schedulers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sd_bundle import Bundle, ModelFacts
from sd_schedulers import (
    SCHEDULERS,
    FromImage,
    NoiseSchedule,
    align_your_steps,
    at_timesteps,
    sample,
    schedule_type,
    spacing_named,
    with_spacing,
)

from sd_runtime.errors import SettingsError
from sd_runtime.request import Request
from sd_runtime.settings import ImageSettings

ALIGN_YOUR_STEPS = "align_your_steps"


def noise_schedule(settings: ImageSettings, bundle: Bundle) -> NoiseSchedule:
    """The noise schedule of ``bundle``, spaced as the settings have it.

    Raises:
        ScheduleError: the scheduler does not honour the spacing.
    """
    return NoiseSchedule.from_config(_config(settings, bundle))


def _config(settings: ImageSettings, bundle: Bundle) -> Mapping[str, object]:
    config = bundle.noise_config()
    if settings.spacing is not None:
        return with_spacing(config, settings.scheduler, settings.spacing)
    return config if settings.timesteps is None and settings.sigmas is None else at_timesteps(config)


def sampler_arguments(settings: ImageSettings, schedule: NoiseSchedule, model: ModelFacts) -> dict[str, Any]:
    """Of :func:`sd_schedulers.sample`: how many steps, where they stop, and how much noise they add."""
    timesteps, steps = settings.timesteps, settings.num_inference_steps
    if settings.spacing == ALIGN_YOUR_STEPS:
        family = "sdxl" if model.family in ("sdxl", "sdxl-refiner") else "sd"
        timesteps = align_your_steps(schedule, family, steps)
    return {
        "num_inference_steps": steps,
        "timesteps": timesteps,
        "sigmas": settings.sigmas,
        "eta": settings.eta,
        "mu": settings.mu,
    }


def scheduling_of(request: Request, scheduler: str, config: Mapping[str, object]) -> dict[str, Any]:
    """The settings that these are for a request; ``config`` is that of the bundle.

    Raises:
        SettingsError: stops are chosen in two ways, or their number is not that of the steps.
        ScheduleError: no spacing of that name.
    """
    _check_one_way(request)
    spacing = None if request.spacing is None else spacing_named(request.spacing).name
    given = request.timesteps is not None or request.sigmas is not None
    return {
        "scheduler": scheduler,
        "spacing": spacing,
        "timesteps": request.timesteps,
        "sigmas": request.sigmas,
        "eta": SCHEDULERS[scheduler].eta if request.eta is None else request.eta,
        "mu": request.mu,
        "schedule_type": None if given else schedule_type(scheduler, config, spacing=spacing),
    }


def steps_stated(request: Request) -> int | None:
    """How many steps a request asks for, by number or by listing where they stop.

    Raises:
        SettingsError: both, and they differ.
    """
    listed = {
        "timesteps": None if request.timesteps is None else len(request.timesteps),
        "sigmas": None if request.sigmas is None else len(request.sigmas) - 1,
    }
    for name, count in listed.items():
        if count is not None:
            if request.num_inference_steps not in (None, count):
                raise SettingsError(
                    f"expected num_inference_steps {count} with these {name}, "
                    f"got {request.num_inference_steps}: leave one out"
                )
            return count
    return request.num_inference_steps


def check_scheduling(settings: ImageSettings, bundle: Bundle) -> None:
    """Let the sampler look at everything it is handed, before any network is loaded; none is run.

    Raises:
        ScheduleError: it does not honour a setting, or a value makes no sense to it.
    """
    model, schedule = bundle.manifest.model, noise_schedule(settings, bundle)
    nothing = np.zeros(model.latent_shape, np.float32)
    start = nothing if settings.strength is None else FromImage(nothing, nothing, settings.strength)
    arguments = sampler_arguments(settings, schedule, model)
    end = settings.refiner_start or 1.0
    sample(settings.scheduler, lambda latent, _: latent, start, schedule, end=end, **arguments)


def _check_one_way(request: Request) -> None:
    stated = [name for name in ("spacing", "timesteps", "sigmas") if getattr(request, name) is not None]
    if len(stated) > 1:
        raise SettingsError(f"expected one of {', '.join(stated)}, got all of them: leave one out")
