"""Where to stop between noise and picture: at which training timesteps, or at which noise levels.

Source: arXiv 2305.08891, table 2 (leading, linspace, trailing); arXiv 2206.00364, eq. 5 (Karras);
arXiv 2407.12173 (Beta Sampling is All You Need), for the beta distribution; arXiv 2404.14507 (Align Your
Steps), as diffusers' ``AysSchedules`` has its tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from sd_schedulers.errors import ScheduleError
from sd_schedulers.schedule import DDPMSchedule, FlowSchedule, NoiseSchedule
from sd_schedulers.settings import Settings

Float64: TypeAlias = npt.NDArray[np.float64]

TIMESTEP_SPACINGS: Final = ("leading", "linspace", "trailing")
KARRAS_RHO: Final = 7.0
#: Both parameters of the beta distribution.
BETA_SHAPE: Final = 0.6

#: Config keys that a noise schedule in the form of DDPM reads.
SCHEDULE_KEYS: Final = frozenset(
    ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
)
#: Config keys of noise levels that do not follow the training timesteps.
SIGMA_KEYS: Final = frozenset(
    ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "sigma_min", "sigma_max")
)

#: Align Your Steps: ten timesteps each, for the ``timesteps`` of :func:`~sd_schedulers.sample`.
ALIGN_YOUR_STEPS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "sd": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24),
        "sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13),
    }
)


@dataclass(frozen=True, slots=True)
class SigmaGrid:
    """Where a solver in noise levels stops: ``n`` timesteps for the model, ``n + 1`` sigmas, descending."""

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]

    @classmethod
    def of(cls, timesteps: Float64, sigmas: Float64, final: float) -> SigmaGrid:
        """The grid with ``final`` as its last level, in float32 as diffusers has it."""
        stops = np.append(sigmas, final).astype(np.float32)
        return cls(tuple(timesteps.tolist()), tuple(stops.tolist()))


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
    schedule: DDPMSchedule, count: int, *, default: str, without_last: bool = False, unreached: int = 0
) -> Float64:
    """``count`` timesteps, descending; only ``linspace`` gives fractions.

    ``without_last`` spreads ``count + 1`` of them and drops the last, at the clean end of the schedule
    (DPM-Solver integrates to it instead of evaluating there); ``trailing`` never holds it. ``unreached`` is
    how many of the noisiest timesteps to leave out; ``trailing`` then gives fewer than ``count``.

    Raises:
        ScheduleError: the spacing is unknown, or reaches past the end of the schedule.
    """
    total = schedule.num_train_timesteps
    reached = total - unreached
    check_step_count(schedule, count)
    match schedule.settings.choice("timestep_spacing", default, TIMESTEP_SPACINGS):
        case "leading":
            stops = count + without_last
            offset = schedule.settings.count("steps_offset", 0, low=-total, high=total)
            timesteps = (np.arange(stops) * (reached // stops) + offset)[::-1].astype(np.float64)
        case "linspace":
            timesteps = np.linspace(0, reached - 1, count + without_last)[::-1]
        case _:
            timesteps = np.round(np.arange(reached, 0, -total / count)) - 1
    # arange may end one too late where total / count is rounded down: 61 steps of 1000 would give 62.
    timesteps = timesteps[:count]
    if timesteps[0] >= total or timesteps[-1] < 0:
        raise ScheduleError(
            f"expected timesteps from 0 to {total - 1}, got {timesteps[0]:g} to {timesteps[-1]:g} for "
            f"{count} steps: use fewer steps or another steps_offset"
        )
    return timesteps


def respaced(
    settings: Settings, count: int, *, sigma_max: float, sigma_min: float, bounded: bool = True
) -> Float64 | None:
    """``count`` noise levels by Karras, exponential or beta, descending; None where the config asks for none.

    They run from ``sigma_max`` to ``sigma_min``, or to what the config has under these names unless
    ``bounded`` is false (diffusers' LMS and SDE classes with Karras' levels).

    Raises:
        ScheduleError: the config asks for two kinds, or its bounds make no sense.
    """
    kind = settings.one_flag(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"))
    if kind is None:
        return None
    high, low = float(sigma_max), float(sigma_min)
    if bounded or kind != "use_karras_sigmas":
        high = settings.number("sigma_max", high, low=1e-10, high=1e10)
        low = settings.number("sigma_min", low, low=1e-10, high=1e10)
    if kind == "use_karras_sigmas":
        return karras(count, high, low, rho=KARRAS_RHO)
    if kind == "use_exponential_sigmas":
        return np.exp(np.linspace(math.log(high), math.log(low), count))
    return low + beta_quantiles(1 - np.linspace(0, 1, count)) * (high - low)


def karras(count: int, sigma_max: float, sigma_min: float, *, rho: float) -> Float64:
    """``count`` levels from ``sigma_max`` to ``sigma_min``, evenly spaced in their root of order ``rho``."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas: Float64 = (high + np.linspace(0, 1, count) * (low - high)) ** rho
    return sigmas


def beta_quantiles(probabilities: Float64) -> Float64:
    """Quantiles of the symmetric beta distribution with both parameters :data:`BETA_SHAPE`.

    Below 1/2, the distribution function is a power series in ``x`` whose terms fall at least by half; above,
    it is its mirror image. The root is found by bisection.
    """
    tails = np.minimum(probabilities, 1 - probabilities)
    low, high = np.zeros_like(tails), np.full_like(tails, 0.5)
    total = 2 * _beta_series(np.array([0.5]))
    for _ in range(64):
        middle = (low + high) / 2
        below = _beta_series(middle) < tails * total
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    quantiles: Float64 = np.where(tails == 0, 0.0, high)
    return np.where(probabilities > 0.5, 1 - quantiles, quantiles)


def _beta_series(x: Float64) -> Float64:
    """The incomplete beta function ``B(x; a, a)`` for ``x`` up to 1/2."""
    result, factor = np.zeros_like(x), 1.0
    for order in range(64):
        result += factor / (BETA_SHAPE + order) * x**order
        factor *= (order + 1 - BETA_SHAPE) / (order + 1)
    series: Float64 = result * x**BETA_SHAPE
    return series


def final_sigma(settings: Settings, table: npt.NDArray[np.float32]) -> float:
    """The level to end at: none, or that of the first timestep."""
    kind = settings.choice("final_sigmas_type", "zero", ("zero", "sigma_min"))
    return 0.0 if kind == "zero" else float(table[0])


def unreached_timesteps(schedule: DDPMSchedule) -> int:
    """How many of the noisiest timesteps have a log SNR below the config's ``lambda_min_clipped``."""
    value = schedule.settings.get("lambda_min_clipped", -math.inf)
    if value == -math.inf:
        return 0
    limit = schedule.settings.number("lambda_min_clipped", 0, low=-100, high=100)
    alphas = schedule.alphas_cumprod
    with np.errstate(divide="ignore"):  # a zero terminal SNR
        log_snr = np.log(np.sqrt(alphas)) - np.log(np.sqrt(np.float32(1) - alphas))
    unreached = int((log_snr < limit).sum())
    if unreached >= len(alphas) - 1:
        raise ScheduleError(f"expected lambda_min_clipped below the log SNR of the data, got {limit}")
    return unreached


def solver_sigmas(
    schedule: DDPMSchedule, timesteps: Float64, *, round_with_cosine: bool = True
) -> tuple[Float64, Float64, bool]:
    """Whole timesteps and their noise levels for DPM-Solver, UniPC and DEIS; whether they are respaced.

    Respaced levels run over the whole table. Karras' timesteps are rounded (cut off with the cosine schedule,
    unless ``round_with_cosine``), the others cut off, as in diffusers.
    """
    table = schedule.sigmas()
    count = len(timesteps)
    sigmas = respaced(schedule.settings, count, sigma_max=float(table[-1]), sigma_min=float(table[0]))
    if sigmas is None:
        return timesteps, np.interp(timesteps, np.arange(len(table)), table), False
    rounds = schedule.settings.flag("use_karras_sigmas", default=False)
    return whole(schedule, sigmas, rounds=rounds, round_with_cosine=round_with_cosine), sigmas, True


def whole(
    schedule: DDPMSchedule, sigmas: Float64, *, rounds: bool, round_with_cosine: bool = True
) -> Float64:
    """Whole timesteps at ``sigmas``: rounded, or cut off."""
    cosine = schedule.settings.get("beta_schedule", "linear") == "squaredcos_cap_v2"
    timesteps = schedule.timesteps_of(sigmas)
    return np.round(timesteps) if rounds and (round_with_cosine or not cosine) else np.trunc(timesteps)


def shifted(sigmas: Float64, shift: float) -> Float64:
    """Flow-matching levels moved to more noise. Source: arXiv 2403.03206, eq. 23."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def flow_grid(schedule: FlowSchedule, count: int, mu: float | None) -> SigmaGrid:
    """Levels of the DPM-Solvers and DEIS for a flow: evenly spaced, then shifted by ``flow_shift``.

    ``mu``, the logarithm of a shift, stands for ``flow_shift`` where the config has ``use_dynamic_shifting``.
    """
    total = schedule.num_train_timesteps
    check_step_count(schedule, count)
    sigmas = shifted(1 - np.linspace(1, 1 / total, count + 1), flow_shift(schedule.settings, mu))[:0:-1]
    return SigmaGrid.of(np.trunc(sigmas * total), sigmas, 0.0)


def flow_shift(settings: Settings, mu: float | None) -> float:
    """The shift that ``mu`` means, or the config's."""
    if mu is None:
        return settings.number("flow_shift", 1.0, low=1e-6, high=1e6)
    settings.choice("time_shift_type", "exponential", ("exponential",))
    return math.exp(mu)
