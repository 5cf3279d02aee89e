"""Schedulers by name, how to add one, and the one entry point that runs them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from sd_schedulers.ddim import DDIM
from sd_schedulers.ddpm import DDPM
from sd_schedulers.deis import DEIS
from sd_schedulers.dpm_2 import DPM_2, DPM_2_ANCESTRAL
from sd_schedulers.dpmpp_2m import DPMPP_2M, DPMPP_2M_SDE
from sd_schedulers.dpmpp_sde import DPMPP_SDE
from sd_schedulers.dpmpp_singlestep import DPMPP_SINGLESTEP
from sd_schedulers.edm import EDM_DPMPP_2M, EDM_EULER
from sd_schedulers.errors import ScheduleError
from sd_schedulers.euler import EULER
from sd_schedulers.euler_ancestral import EULER_ANCESTRAL
from sd_schedulers.flow_match_euler import FLOW_MATCH_EULER
from sd_schedulers.heun import HEUN
from sd_schedulers.lcm import LCM
from sd_schedulers.lms import LMS
from sd_schedulers.pndm import PNDM
from sd_schedulers.prediction import Float32
from sd_schedulers.sampling import Model, Scheduler, Step, checked, drawn
from sd_schedulers.schedule import FlowSchedule, NoiseSchedule
from sd_schedulers.spacing import check_step_count
from sd_schedulers.start import FromImage, FromNoise, Resumed, Span, Start
from sd_schedulers.tcd import TCD
from sd_schedulers.unipc import UNIPC

_BUILT_IN: Final[tuple[Scheduler[Any], ...]] = (
    PNDM,
    DDIM,
    DDPM,
    EULER,
    EULER_ANCESTRAL,
    HEUN,
    LMS,
    DPM_2,
    DPM_2_ANCESTRAL,
    DPMPP_2M,
    DPMPP_2M_SDE,
    DPMPP_SDE,
    DPMPP_SINGLESTEP,
    UNIPC,
    DEIS,
    LCM,
    TCD,
    EDM_EULER,
    EDM_DPMPP_2M,
    FLOW_MATCH_EULER,
)

_schedulers: dict[str, Scheduler[Any]] = {}
_spellings: dict[str, str] = {}

#: Every scheduler by its name here: those of this package, and what :func:`register` added.
SCHEDULERS: Final[Mapping[str, Scheduler[Any]]] = MappingProxyType(_schedulers)


def register(scheduler: Scheduler[Any]) -> None:
    """Add a scheduler, for the rest of the process, under its name, its aliases and its diffusers class.

    Raises:
        ScheduleError: another one has one of these names; nothing is added.
    """
    spellings = {name.lower() for name in (scheduler.name, *scheduler.aliases, scheduler.diffusers) if name}
    taken = sorted(spellings & _spellings.keys())
    if taken:
        owner = _spellings[taken[0]]
        raise ScheduleError(f"expected a name that no scheduler has, got {taken[0]!r}, which is {owner!r}")
    _schedulers[scheduler.name] = scheduler
    _spellings.update(dict.fromkeys(spellings, scheduler.name))


for _scheduler in _BUILT_IN:
    register(_scheduler)


def resolve(name: str) -> str:
    """The name here of a scheduler under any of its names, in any case.

    Raises:
        ScheduleError: there is no such scheduler; the choices are listed.

    Example:
        >>> resolve("DPMSolverMultistep")
        'dpmpp_2m'
    """
    found = _spellings.get(name.lower())
    if found is None:
        raise ScheduleError(f"expected a scheduler of {', '.join(SCHEDULERS)}; got {name!r}")
    return found


def check_config(name: str, schedule: NoiseSchedule) -> None:
    """Hold the config of ``schedule`` to the keys that a scheduler declares; :func:`sample` does so too.

    Keys that only others of the same form of noise schedule read change nothing, as with diffusers'
    ``from_config``.

    Raises:
        ScheduleError: a key that none of them has, or a value that this one cannot follow.
    """
    scheduler = SCHEDULERS[resolve(name)]
    family = [other.keys.names for other in SCHEDULERS.values() if isinstance(schedule, other.forms)]
    scheduler.keys.check(schedule.settings, scheduler=scheduler.name, foreign=frozenset().union(*family))


def sample(
    name: str,
    model: Model,
    start: Float32 | Start,
    schedule: NoiseSchedule,
    *,
    num_inference_steps: int,
    end: float = 1.0,
    step_noise: Iterable[Float32] = (),
    timesteps: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
    eta: float | None = None,
    mu: float | None = None,
) -> Iterator[Step]:
    """Integrate from noise to a latent, one step for each evaluation of the model.

    ``start`` is unit-variance Gaussian noise, ``(B, C, H, W)``, which the scheduler scales; or
    :class:`FromImage`, or :class:`Resumed`. ``end`` below 1 stops early: after that share of the training
    timesteps, as diffusers' ``denoising_end``. ``step_noise`` is unit noise too, an array for every step,
    asked for as it is needed: the stochastic schedulers add it, the others ask for none.

    ``timesteps``, ``num_inference_steps`` of them, stand for the config's spacing (``ALIGN_YOUR_STEPS``); so
    do ``sigmas``, one more of them, which fall to where the last step ends (0). ``eta`` is how much of the
    noise to add anew, from 0 to 1 (``ddim``, by default 0; ``tcd``, 0.3); ``mu`` is the shift of a
    flow-matching config with ``use_dynamic_shifting`` (:func:`flow_mu`).

    The last step's ``latent`` is the result. The config and the arguments are checked at the call; the model
    runs as steps are asked for, so progress, preview and stopping early are the caller's ``for`` loop.

    Raises:
        ScheduleError: no such scheduler, a config, argument or step count that it cannot serve, a model
            output of another shape than its input, or too little ``step_noise``.
    """
    scheduler = SCHEDULERS[resolve(name)]
    check_config(name, schedule)
    check_step_count(schedule, num_inference_steps)
    checked_start, shape = _checked_start(start)
    span = Span(
        num_inference_steps,
        checked_start,
        end,
        drawn(step_noise, shape),
        timesteps=_checked_timesteps(scheduler, timesteps, num_inference_steps, schedule),
        sigmas=_checked_sigmas(scheduler, sigmas, num_inference_steps, timesteps),
        eta=_checked_eta(scheduler, eta),
        mu=_checked_mu(scheduler, mu, schedule),
    )
    return scheduler.steps(checked(model), schedule, span)


def _checked_timesteps(
    scheduler: Scheduler[Any], timesteps: Sequence[int] | None, count: int, schedule: NoiseSchedule
) -> tuple[int, ...] | None:
    if timesteps is None:
        return None
    _refuse_unless(scheduler.takes_timesteps, scheduler, "timesteps")
    total = schedule.num_train_timesteps
    falling = [total, *timesteps, -1]
    if len(timesteps) != count or any(later >= before for before, later in pairwise(falling)):
        raise ScheduleError(
            f"expected {count} timesteps (num_inference_steps), falling, from {total - 1} to 0, got "
            f"{timesteps!r}"
        )
    return tuple(timesteps)


def _checked_sigmas(
    scheduler: Scheduler[Any],
    sigmas: Sequence[float] | None,
    count: int,
    timesteps: Sequence[int] | None,
) -> tuple[float, ...] | None:
    if sigmas is None:
        return None
    _refuse_unless(scheduler.takes_sigmas, scheduler, "sigmas")
    if timesteps is not None:
        raise ScheduleError("expected timesteps or sigmas, got both")
    finite = all(math.isfinite(sigma) for sigma in sigmas)
    falls = finite and all(later < before for before, later in pairwise(sigmas))
    if len(sigmas) != count + 1 or not falls or sigmas[-1] < 0:
        raise ScheduleError(
            f"expected {count + 1} sigmas (num_inference_steps, and where the last ends), falling, down to 0 "
            f"or above, got {sigmas!r}"
        )
    return tuple(map(float, sigmas))


def _checked_eta(scheduler: Scheduler[Any], eta: float | None) -> float:
    if eta is None:
        return scheduler.eta or 0.0
    _refuse_unless(scheduler.eta is not None, scheduler, "eta")
    if not 0 <= eta <= 1:
        raise ScheduleError(f"expected eta from 0 to 1, got {eta!r}")
    return float(eta)


def _checked_mu(scheduler: Scheduler[Any], mu: float | None, schedule: NoiseSchedule) -> float | None:
    if mu is None:
        return None
    _refuse_unless(scheduler.takes_mu, scheduler, "mu")
    if not isinstance(schedule, FlowSchedule):
        raise ScheduleError(f"expected a flow-matching schedule with mu, got {type(schedule).__name__}")
    if not -100 <= mu <= 100:
        raise ScheduleError(f"expected mu from -100 to 100, got {mu!r}")
    return float(mu)


def _refuse_unless(takes: bool, scheduler: Scheduler[Any], argument: str) -> None:
    if not takes:
        raise ScheduleError(
            f"expected no {argument} for scheduler {scheduler.name!r}, which takes none, got some"
        )


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
