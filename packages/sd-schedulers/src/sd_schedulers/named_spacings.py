"""Ways to spread the steps over the noise, by name: what each makes of a scheduler's config.

Source: arXiv 2305.08891, table 2 (leading, linspace, trailing); arXiv 2206.00364, eq. 5 (Karras);
arXiv 2407.12173 (beta); arXiv 2404.14507 (Align Your Steps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from sd_schedulers.errors import ScheduleError
from sd_schedulers.registry import SCHEDULERS, resolve
from sd_schedulers.sampling import Scheduler
from sd_schedulers.schedule import DDPMSchedule, NoiseSchedule
from sd_schedulers.spacing import ALIGN_YOUR_STEPS, check_step_count

#: Config keys that choose noise levels of their own, in place of those at the timesteps.
_RESPACING: Final = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


@dataclass(frozen=True, slots=True)
class Spacing:
    """One of them: the config ``key`` that asks for it and its ``value``; no key where timesteps are given.

    ``webui`` is AUTOMATIC1111's ``Schedule type``, None where the web UI has none.
    """

    name: str
    key: str | None
    value: object
    webui: str | None

    def is_honoured_by(self, scheduler: Scheduler[Any]) -> bool:
        """Whether it changes what the scheduler does."""
        return scheduler.takes_timesteps if self.key is None else self.key in scheduler.keys.honoured


#: By their names. Source of the web UI's: modules/sd_schedulers.py there.
SPACINGS: Final[Mapping[str, Spacing]] = MappingProxyType(
    {
        spacing.name: spacing
        for spacing in (
            Spacing("leading", "timestep_spacing", "leading", None),
            Spacing("linspace", "timestep_spacing", "linspace", "Uniform"),
            Spacing("trailing", "timestep_spacing", "trailing", "SGM Uniform"),
            Spacing("karras", "use_karras_sigmas", True, "Karras"),
            Spacing("exponential", "use_exponential_sigmas", True, "Exponential"),
            Spacing("beta", "use_beta_sigmas", True, "Beta"),
            Spacing("align_your_steps", None, None, "Align Your Steps"),
        )
    }
)


def spacing_named(name: str) -> Spacing:
    """The spacing of that name, or of that ``Schedule type`` of the web UI, in any case.

    Raises:
        ScheduleError: there is none; the choices are listed.

    Example:
        >>> spacing_named("SGM Uniform").name
        'trailing'
    """
    for spacing in SPACINGS.values():
        if name.lower() in (spacing.name, (spacing.webui or "").lower()):
            return spacing
    raise ScheduleError(f"expected a spacing of {', '.join(SPACINGS)}; got {name!r}")


def with_spacing(config: Mapping[str, object], scheduler: str, name: str) -> dict[str, object]:
    """``config`` with this spacing and no other.

    Raises:
        ScheduleError: no such spacing or scheduler, or one that the scheduler does not honour.
    """
    spacing, chosen = spacing_named(name), SCHEDULERS[resolve(scheduler)]
    if not spacing.is_honoured_by(chosen):
        honoured = [each.name for each in SPACINGS.values() if each.is_honoured_by(chosen)]
        raise ScheduleError(
            f"expected a spacing of {', '.join(honoured) or 'none'} for scheduler {chosen.name!r}, "
            f"got {spacing.name!r}"
        )
    return {**at_timesteps(config), **({} if spacing.key is None else {spacing.key: spacing.value})}


def at_timesteps(config: Mapping[str, object]) -> dict[str, object]:
    """``config`` without noise levels of its own: they are those at the timesteps."""
    return {**config, **{key: False for key in _RESPACING if config.get(key)}}


def align_your_steps(schedule: NoiseSchedule, family: str, count: int) -> tuple[int, ...]:
    """``count`` timesteps of Align Your Steps for ``family`` (``sd``, ``sdxl``): ``timesteps`` of ``sample``.

    Its tables have ten. For other numbers their noise levels are interpolated, linearly in the logarithm, as
    the authors do.

    Raises:
        ScheduleError: not a DDPM schedule, which the tables were made for, or a senseless count.
    """
    table = ALIGN_YOUR_STEPS[family]
    if not isinstance(schedule, DDPMSchedule):
        raise ScheduleError(f"expected a DDPM schedule for Align Your Steps, got {type(schedule).__name__}")
    check_step_count(schedule, count)
    if count == len(table):
        return table
    logs = np.log(schedule.sigmas())[list(table)]
    sigmas = np.exp(np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(table)), logs))
    timesteps: list[int] = np.round(schedule.timesteps_of(sigmas)).astype(int).tolist()
    return tuple(timesteps)
