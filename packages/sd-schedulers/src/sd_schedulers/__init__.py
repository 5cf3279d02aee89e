"""The mathematics of diffusion sampling, in numpy."""

from sd_schedulers.errors import ScheduleError
from sd_schedulers.registry import SAMPLERS, resolve, sample
from sd_schedulers.sampling import Model, Sampler, Step
from sd_schedulers.schedule import NoiseSchedule

__all__ = ["SAMPLERS", "Model", "NoiseSchedule", "Sampler", "ScheduleError", "Step", "resolve", "sample"]
