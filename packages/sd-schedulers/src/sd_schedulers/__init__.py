"""The mathematics of diffusion sampling, in numpy."""

from sd_schedulers.errors import ScheduleError
from sd_schedulers.flow_match_euler import flow_mu
from sd_schedulers.named_spacings import (
    SPACINGS,
    Spacing,
    align_your_steps,
    at_timesteps,
    spacing_named,
    with_spacing,
)
from sd_schedulers.prediction import Level, Prediction, mix
from sd_schedulers.registry import SCHEDULERS, check_config, register, resolve, sample
from sd_schedulers.sampling import Model, Sampler, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule, EDMSchedule, FlowSchedule, NoiseSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.spacing import ALIGN_YOUR_STEPS
from sd_schedulers.start import FromImage, FromNoise, Resumed, Span, Start
from sd_schedulers.webui import SAMPLER_NAMES, sampler_name, sampler_named, schedule_type

__all__ = [
    "ALIGN_YOUR_STEPS",
    "SAMPLER_NAMES",
    "SCHEDULERS",
    "SPACINGS",
    "ConfigKeys",
    "DDPMSchedule",
    "EDMSchedule",
    "FlowSchedule",
    "FromImage",
    "FromNoise",
    "Level",
    "Model",
    "NoiseSchedule",
    "Prediction",
    "Resumed",
    "Sampler",
    "ScheduleError",
    "Scheduler",
    "Spacing",
    "Span",
    "Start",
    "Step",
    "align_your_steps",
    "at_timesteps",
    "check_config",
    "flow_mu",
    "mix",
    "register",
    "resolve",
    "sample",
    "sampler_name",
    "sampler_named",
    "schedule_type",
    "spacing_named",
    "with_spacing",
]
