"""The mathematics of diffusion sampling, in numpy."""

from sd_schedulers.errors import ScheduleError
from sd_schedulers.registry import SAMPLERS, resolve, sample
from sd_schedulers.sampling import Model, Sampler, Step
from sd_schedulers.schedule import NoiseSchedule
from sd_schedulers.start import FromImage, FromNoise, Resumed, Start

__all__ = [
    "SAMPLERS",
    "FromImage",
    "FromNoise",
    "Model",
    "NoiseSchedule",
    "Resumed",
    "Sampler",
    "ScheduleError",
    "Start",
    "Step",
    "resolve",
    "sample",
]
