"""Samplers by name, and the one entry point that runs them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import numpy as np

from sd_schedulers.ddim import ddim
from sd_schedulers.dpmpp_2m import dpmpp_2m
from sd_schedulers.errors import ScheduleError
from sd_schedulers.euler import euler
from sd_schedulers.euler_ancestral import euler_ancestral
from sd_schedulers.lcm import lcm
from sd_schedulers.pndm import pndm
from sd_schedulers.sampling import Model, Sampler, Step, checked, drawn
from sd_schedulers.schedule import Float32, NoiseSchedule
from sd_schedulers.spacing import check_step_count
from sd_schedulers.start import FromImage, FromNoise, Resumed, Span, Start

#: Every sampler by its name here.
SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "pndm": pndm,
        "ddim": ddim,
        "euler": euler,
        "euler_ancestral": euler_ancestral,
        "dpmpp_2m": dpmpp_2m,
        "lcm": lcm,
    }
)

#: Other spellings, in lower case: Apple's Python pipeline, its Swift package, diffusers' classes.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "pndmscheduler": "pndm",
        "ddimscheduler": "ddim",
        "eulerdiscrete": "euler",
        "eulerdiscretescheduler": "euler",
        "euler_a": "euler_ancestral",
        "eulerancestraldiscrete": "euler_ancestral",
        "eulerancestraldiscretescheduler": "euler_ancestral",
        "dpmpp": "dpmpp_2m",
        "dpmsolvermultistep": "dpmpp_2m",
        "dpmsolvermultistepscheduler": "dpmpp_2m",
        "lcmscheduler": "lcm",
    }
)


def resolve(name: str) -> str:
    """The name here of a sampler under any of its names, in any case.

    Raises:
        ScheduleError: there is no such sampler; the choices are listed.

    Example:
        >>> resolve("DPMSolverMultistep")
        'dpmpp_2m'
    """
    lowered = name.lower()
    canonical = ALIASES.get(lowered, lowered)
    if canonical not in SAMPLERS:
        raise ScheduleError(f"expected a sampler of {', '.join(SAMPLERS)}, got {name!r}")
    return canonical


def sample(
    name: str,
    model: Model,
    start: Float32 | Start,
    schedule: NoiseSchedule,
    *,
    num_inference_steps: int,
    end: float = 1.0,
    step_noise: Iterable[Float32] = (),
) -> Iterator[Step]:
    """Integrate from noise to a latent, one step for each evaluation of the model.

    ``start`` is unit-variance Gaussian noise, ``(B, C, H, W)``, which the sampler scales; or
    :class:`FromImage`, or :class:`Resumed`. ``end`` below 1 stops early: after that share of the training
    timesteps, as diffusers' ``denoising_end``. ``step_noise`` is unit noise too, an array for every step,
    asked for as it is needed: ``euler_ancestral`` and ``lcm`` add it, the others ask for none.

    The last step's ``latent`` is the result. The config and the arguments are checked at the call; the model
    runs as steps are asked for, so progress, preview and stopping early are the caller's ``for`` loop.

    Raises:
        ScheduleError: no such sampler, a config or step count that it cannot serve, a model output of
            another shape than its input, or too little ``step_noise``.
    """
    sampler = SAMPLERS[resolve(name)]
    check_step_count(schedule, num_inference_steps)
    checked_start, shape = _checked_start(start)
    span = Span(num_inference_steps, checked_start, end, drawn(step_noise, shape))
    return sampler(checked(model), schedule, span)


def _checked_start(start: Float32 | Start) -> tuple[Start, tuple[int, ...]]:
    """``start`` in float32, and the shape of its latent."""
    match start:
        case FromImage(image, noise, strength):
            return FromImage(_float32(image, "image"), _float32(noise, "noise"), strength), image.shape
        case Resumed(state, progress):
            return Resumed(_float32(state, "state"), progress), state.shape
        case _:
            noise = _float32(start.noise if isinstance(start, FromNoise) else start, "noise")
            return FromNoise(noise), noise.shape


def _float32(array: object, what: str) -> Float32:
    checked_array = np.asarray(array)
    if checked_array.dtype.kind != "f":
        raise ScheduleError(f"expected {what} of a floating-point dtype, got {checked_array.dtype}")
    return checked_array.astype(np.float32)
