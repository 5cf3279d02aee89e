"""Samplers by name, and the one entry point that runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from sd_schedulers.ddim import ddim
from sd_schedulers.dpmpp_2m import dpmpp_2m
from sd_schedulers.errors import ScheduleError
from sd_schedulers.euler import euler
from sd_schedulers.pndm import pndm
from sd_schedulers.sampling import Model, Sampler, Step, checked
from sd_schedulers.schedule import Float32, NoiseSchedule

#: Every sampler by its name here.
SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {"pndm": pndm, "ddim": ddim, "euler": euler, "dpmpp_2m": dpmpp_2m}
)

#: Other spellings, in lower case: Apple's Python pipeline, its Swift package, diffusers' classes.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "pndmscheduler": "pndm",
        "ddimscheduler": "ddim",
        "eulerdiscrete": "euler",
        "eulerdiscretescheduler": "euler",
        "dpmpp": "dpmpp_2m",
        "dpmsolvermultistep": "dpmpp_2m",
        "dpmsolvermultistepscheduler": "dpmpp_2m",
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
    name: str, model: Model, noise: Float32, schedule: NoiseSchedule, *, num_inference_steps: int
) -> Iterator[Step]:
    """Integrate from noise to a latent, one step for each evaluation of the model.

    ``noise`` is unit-variance Gaussian, ``(B, C, H, W)``; the sampler scales it. The last step's ``latent``
    is the result. The config and the arguments are checked at the call; the model runs as steps are asked
    for, so progress, preview and stopping early are the caller's ``for`` loop.

    Raises:
        ScheduleError: no such sampler, a config or step count that it cannot serve, or a model output of
            another shape than its input.
    """
    unit = np.asarray(noise)
    if unit.dtype.kind != "f":
        raise ScheduleError(f"expected noise of a floating-point dtype, got {unit.dtype}")
    sampler = SAMPLERS[resolve(name)]
    return sampler(checked(model), unit.astype(np.float32), schedule, num_inference_steps=num_inference_steps)
