"""DPM-Solver++(2M) and its kin: multistep, in the predicted clean latent or noise, as an ODE or an SDE.

Source: arXiv 2211.01095 (DPM-Solver++), algorithm 2; arXiv 2305.14267 (Lu et al.), for ``use_lu_lambdas``;
diffusers ``DPMSolverMultistepScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np

from sd_schedulers.clipping import clip_of
from sd_schedulers.dpm_solver import (
    FIXED_VARIANCES,
    SOLVER_KEYS,
    Solver,
    check_flow,
    multistep,
    refuse_equal_levels,
)
from sd_schedulers.errors import ScheduleError
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule, FlowSchedule, NoiseSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.sigma_space import refuse_given_timesteps
from sd_schedulers.spacing import (
    SigmaGrid,
    final_sigma,
    flow_grid,
    solver_sigmas,
    spaced_timesteps,
    unreached_timesteps,
    whole,
)
from sd_schedulers.start import Span

NAME = "dpmpp_2m"

KEYS = ConfigKeys(
    honoured=SOLVER_KEYS
    | {"algorithm_type", "solver_type", "euler_at_final", "use_lu_lambdas", "final_sigmas_type"}
    | {"lambda_min_clipped", "timestep_spacing", "steps_offset", "rescale_betas_zero_snr"},
    limited={"variance_type": FIXED_VARIANCES},
)


def dpmpp_2m(model: Model, schedule: NoiseSchedule, span: Span, *, sde: bool = False) -> Iterator[Step]:
    """Sampling of ``solver_order`` (2) in ``n`` evaluations; noise at each if the algorithm is an SDE.

    Raises:
        ScheduleError: settings that contradict each other, or as many steps as there are timesteps.
    """
    settings = schedule.settings
    solver = Solver.read(settings, lower_order_final=True, sde=sde)
    grid = solver_grid(schedule, span, solver)
    window = span.window(grid.timesteps, schedule)
    euler_at_final = settings.flag("euler_at_final", default=False)
    clip = clip_of(settings)
    latent = span.latent(at=schedule.level(grid.sigmas[window.start]))
    return multistep(
        model,
        latent,
        schedule,
        grid,
        window,
        solver,
        span.fresh_noise,
        clip=clip,
        euler_at_final=euler_at_final,
    )


def solver_grid(schedule: NoiseSchedule, span: Span, solver: Solver) -> SigmaGrid:
    """Timesteps and levels, those of a flow too, checked against what the solver can do."""
    settings = schedule.settings
    if isinstance(schedule, FlowSchedule):
        check_flow(schedule, span.mu)
        refuse_given_timesteps(span)
        settings.choice("final_sigmas_type", "zero", ("zero",))
        if solver.predicts_noise:
            raise ScheduleError(
                f"expected algorithm_type (sde-)dpmsolver++ for a flow, got {solver.algorithm}"
            )
        return flow_grid(schedule, span.count, span.mu)
    if not isinstance(schedule, DDPMSchedule):
        raise ScheduleError(f"expected a DDPM or flow-matching schedule, got {type(schedule).__name__}")
    grid = _ddpm_grid(schedule, span)
    if solver.predicts_noise and grid.sigmas[-1] == 0:
        raise ScheduleError(
            f"expected final_sigmas_type 'sigma_min' for algorithm_type {solver.algorithm!r}, got 'zero'"
        )
    refuse_equal_levels(grid, NAME)
    return grid


def _ddpm_grid(schedule: DDPMSchedule, span: Span) -> SigmaGrid:
    table = schedule.sigmas()
    final = final_sigma(schedule.settings, table)
    timesteps = (
        np.array(span.timesteps, np.float64)
        if span.timesteps is not None
        else spaced_timesteps(
            schedule,
            span.count,
            default="linspace",
            without_last=True,
            unreached=unreached_timesteps(schedule),
        ).round()
    )
    if schedule.settings.flag("use_lu_lambdas", default=False):
        refuse_given_timesteps(span)
        schedule.settings.one_flag(
            ("use_lu_lambdas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
        )
        sigmas = np.exp(np.linspace(math.log(table[-1]), math.log(table[0]), span.count))
        rounded = whole(schedule, sigmas, rounds=True, round_with_cosine=False)
        return SigmaGrid.of(rounded, sigmas, final)
    timesteps, sigmas, respaced = solver_sigmas(schedule, timesteps, round_with_cosine=False)
    if respaced:
        refuse_given_timesteps(span)
    return SigmaGrid.of(timesteps, sigmas, final)


DPMPP_2M = Scheduler(
    name=NAME,
    diffusers="DPMSolverMultistepScheduler",
    keys=KEYS,
    forms=(DDPMSchedule, FlowSchedule),
    sampler=dpmpp_2m,
    aliases=("DPMSolverMultistep", "dpmpp"),
    takes_timesteps=True,
    takes_mu=True,
)
#: The same with ``sde-`` before its ``algorithm_type``.
DPMPP_2M_SDE = Scheduler(
    name="dpmpp_2m_sde",
    diffusers=None,
    keys=KEYS,
    forms=(DDPMSchedule, FlowSchedule),
    sampler=partial(dpmpp_2m, sde=True),
    takes_timesteps=True,
    takes_mu=True,
)
