"""Which of the training timesteps to stop at, and at what noise level.

Source: arXiv 2305.08891, table 2 (leading, linspace, trailing); arXiv 2206.00364, eq. 5 (Karras).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sd_schedulers.errors import ScheduleError
from sd_schedulers.schedule import NoiseSchedule

Float64: TypeAlias = npt.NDArray[np.float64]

SPACINGS = ("leading", "linspace", "trailing")
KARRAS_RHO = 7.0


@dataclass(frozen=True, slots=True)
class SigmaGrid:
    """Where a sampler in noise levels stops: ``n`` timesteps for the model, ``n + 1`` sigmas, descending."""

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]


def check_step_count(schedule: NoiseSchedule, count: int) -> None:
    """Refuse a number of steps that is not from 1 to ``num_train_timesteps``."""
    if (
        isinstance(count, bool)
        or not isinstance(count, int)
        or not 1 <= count <= schedule.num_train_timesteps
    ):
        raise ScheduleError(
            f"expected num_inference_steps from 1 to {schedule.num_train_timesteps}, got {count!r}"
        )


def spaced_timesteps(
    schedule: NoiseSchedule, count: int, *, default: str, without_last: bool = False
) -> Float64:
    """``count`` timesteps, descending; only ``linspace`` gives fractions.

    ``without_last`` spreads ``count + 1`` of them and drops the last, at the clean end of the schedule
    (DPM-Solver integrates to it instead of evaluating there); ``trailing`` never holds it.

    Raises:
        ScheduleError: the spacing is unknown, or reaches past the end of the schedule.
    """
    total = schedule.num_train_timesteps
    check_step_count(schedule, count)
    match schedule.settings.choice("timestep_spacing", default, SPACINGS):
        case "leading":
            stops = count + without_last
            offset = schedule.settings.count("steps_offset", 0, low=-total, high=total)
            timesteps = (np.arange(stops) * (total // stops) + offset)[::-1].astype(np.float64)
        case "linspace":
            timesteps = np.linspace(0, total - 1, count + without_last)[::-1]
        case _:
            timesteps = np.round(np.arange(total, 0, -total / count)) - 1
    # arange may end one too late where total / count is rounded down: 61 steps of 1000 would give 62.
    timesteps = timesteps[:count]
    if timesteps[0] >= total or timesteps[-1] < 0:
        raise ScheduleError(
            f"expected timesteps from 0 to {total - 1}, got {timesteps[0]:g} to {timesteps[-1]:g} for "
            f"{count} steps: use fewer steps or another steps_offset"
        )
    return timesteps


def sigma_grid(schedule: NoiseSchedule, timesteps: Float64, *, span: tuple[float, float]) -> SigmaGrid:
    """Noise levels at ``timesteps``, and the final one; Karras' where the config asks for them.

    ``span`` is Karras' ``(sigma_max, sigma_min)`` where the config does not set them. With Karras' levels,
    the timesteps are those of the levels, and fractional.
    """
    settings = schedule.settings
    table = schedule.sigmas()
    if settings.flag("use_karras_sigmas", default=False):
        sigmas = _karras(
            len(timesteps), _limit(schedule, "sigma_max", span[0]), _limit(schedule, "sigma_min", span[1])
        )
        timesteps = _timestep_of(sigmas, table)
    else:
        sigmas = np.interp(timesteps, np.arange(len(table)), table)
    final = settings.choice("final_sigmas_type", "zero", ("zero", "sigma_min"))
    stops = np.append(sigmas, 0 if final == "zero" else table[0]).astype(np.float32)
    return SigmaGrid(timesteps=tuple(timesteps.tolist()), sigmas=tuple(stops.tolist()))


def _limit(schedule: NoiseSchedule, key: str, default: float) -> float:
    return schedule.settings.number(key, float(default), low=1e-10, high=1e10)


def _karras(count: int, sigma_max: float, sigma_min: float) -> Float64:
    high, low = sigma_max ** (1 / KARRAS_RHO), sigma_min ** (1 / KARRAS_RHO)
    sigmas: Float64 = (high + np.linspace(0, 1, count) * (low - high)) ** KARRAS_RHO
    return sigmas


def _timestep_of(sigmas: Float64, table: npt.NDArray[np.float32]) -> Float64:
    """Fractional timesteps of noise levels: linear in log sigma between the levels of the table."""
    timesteps: Float64 = np.interp(np.log(sigmas), np.log(table), np.arange(len(table)))
    return timesteps
