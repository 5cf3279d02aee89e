"""DPM-Solver++ singlestep: groups of up to three evaluations, each step from the start of its group.

Source: arXiv 2206.00927 (DPM-Solver), algorithms 1 and 2; arXiv 2211.01095 (DPM-Solver++), algorithm 1;
diffusers ``DPMSolverSinglestepScheduler``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sd_schedulers.clipping import Clip, clip_of
from sd_schedulers.dpm_solver import (
    FIXED_VARIANCES,
    SOLVER_KEYS,
    Solver,
    check_flow,
    converted,
    refuse_equal_levels,
    weights,
)
from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32, Level, divided
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule, FlowSchedule, NoiseSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.sigma_space import refuse_given_timesteps
from sd_schedulers.spacing import (
    SigmaGrid,
    check_step_count,
    final_sigma,
    flow_grid,
    solver_sigmas,
    unreached_timesteps,
)
from sd_schedulers.start import Draw, Span

NAME = "dpmpp_singlestep"

KEYS = ConfigKeys(
    honoured=SOLVER_KEYS | {"algorithm_type", "solver_type", "final_sigmas_type", "lambda_min_clipped"},
    limited={"variance_type": FIXED_VARIANCES, "rescale_betas_zero_snr": (False,)},
)


def dpmpp_singlestep(model: Model, schedule: NoiseSchedule, span: Span) -> Iterator[Step]:
    """Sampling of ``solver_order`` (2) in ``n`` evaluations; noise at each if the algorithm is an SDE.

    Each evaluation moves the latent, so that a preview is there, but the last of a group starts anew from the
    group's first latent. Timesteps are always ``linspace``, as in diffusers.

    Raises:
        ScheduleError: settings that contradict each other, or as many steps as there are timesteps.
    """
    solver = Solver.read(schedule.settings, lower_order_final=False)
    if solver.algorithm == "sde-dpmsolver":
        raise ScheduleError(f"expected algorithm_type sde-dpmsolver++ for {NAME!r}, got 'sde-dpmsolver'")
    grid = _grid(schedule, span, solver)
    orders = _orders(solver, span.count, ends_clean=grid.sigmas[-1] == 0)
    window = span.window(grid.timesteps, schedule)
    latent = span.latent(at=schedule.level(grid.sigmas[window.start]))
    clip = clip_of(schedule.settings)
    return _steps(model, latent, schedule, grid, window, solver, orders, clip, span.fresh_noise)


def _grid(schedule: NoiseSchedule, span: Span, solver: Solver) -> SigmaGrid:
    if isinstance(schedule, FlowSchedule):
        check_flow(schedule, span.mu)
        refuse_given_timesteps(span)
        schedule.settings.choice("final_sigmas_type", "zero", ("zero",))
        if solver.predicts_noise:
            raise ScheduleError(
                f"expected algorithm_type (sde-)dpmsolver++ for a flow, got {solver.algorithm}"
            )
        return flow_grid(schedule, span.count, span.mu)
    if not isinstance(schedule, DDPMSchedule):
        raise ScheduleError(f"expected a DDPM or flow-matching schedule, got {type(schedule).__name__}")
    check_step_count(schedule, span.count)
    last = schedule.num_train_timesteps - 1 - unreached_timesteps(schedule)
    timesteps = np.linspace(0, last, span.count + 1).round()[:0:-1]
    if span.timesteps is not None:
        timesteps = np.array(span.timesteps, np.float64)
    timesteps, sigmas, respaced = solver_sigmas(schedule, timesteps)
    if respaced:
        refuse_given_timesteps(span)
    grid = SigmaGrid.of(timesteps, sigmas, final_sigma(schedule.settings, schedule.sigmas()))
    if solver.predicts_noise and grid.sigmas[-1] == 0:
        raise ScheduleError(
            f"expected final_sigmas_type 'sigma_min' for algorithm_type {solver.algorithm!r}, got 'zero'"
        )
    refuse_equal_levels(grid, NAME)
    return grid


def _orders(solver: Solver, count: int, *, ends_clean: bool) -> list[int]:
    """The order of each step. A count that does not divide into groups ends in steps of lower order."""
    order = solver.order
    group = list(range(1, order + 1))
    if order == 1 or not (solver.lower_order_final or count % order or ends_clean):
        return group * (count // order)
    if order == 2:
        return group * ((count - 1) // 2) + ([1, 1] if count % 2 == 0 else [1])
    endings = {0: [1, 2, 1], 1: [1], 2: [1, 2]}
    orders = group * ((count - len(endings[count % 3])) // 3) + endings[count % 3]
    return [*orders[:-1], 1] if ends_clean else orders


def _steps(
    model: Model,
    latent: Float32,
    schedule: NoiseSchedule,
    grid: SigmaGrid,
    window: range,
    solver: Solver,
    orders: Sequence[int],
    clip: Clip | None,
    fresh_noise: Draw,
) -> Iterator[Step]:
    levels = [schedule.level(sigma) for sigma in grid.sigmas]
    history: tuple[Float32, ...] = ()
    base = latent
    for index in window:
        here, timestep = levels[index], grid.timesteps[index]
        output = model(schedule.network_input(latent, at=here), timestep)
        estimate, outcome = converted(output, latent, schedule, here, noise=solver.predicts_noise, clip=clip)
        history = (outcome, *history[: solver.order - 1])
        order = min(orders[index], len(history))
        base = latent if order == 1 else base
        start = levels[index - order + 1]
        latent = _update(base, history[:order][::-1], levels[index - order + 1 : index + 2], solver)
        if solver.is_stochastic:
            fresh = fresh_noise()
            latent = latent + weights(solver.algorithm, start, levels[index + 1]).noise * fresh
        yield Step(index - window.start, len(window), timestep, latent, estimate)


def _update(base: Float32, outcomes: Sequence[Float32], levels: Sequence[Level], solver: Solver) -> Float32:
    """From the first of ``levels`` to the last, by the outcomes at all but the last, oldest first."""
    start, end = levels[0], levels[-1]
    weight = weights(solver.algorithm, start, end)
    latent: Float32 = weight.latent * base + weight.first * outcomes[0]
    h = end.log_snr - start.log_snr
    if len(outcomes) == 1 or h == 0:
        return latent
    distances = [(level.log_snr - start.log_snr) / h for level in levels[1:-1]]
    slopes = [
        divided(outcome - outcomes[0], distance)
        for outcome, distance in zip(outcomes[1:], distances, strict=True)
    ]
    if len(outcomes) == 2:
        return latent + (weight.midpoint if solver.midpoint else weight.second) * slopes[0]
    if solver.midpoint:
        return latent + weight.second * slopes[1]
    near, far = distances
    slope = divided(far * slopes[0] - near * slopes[1], far - near)
    bend = weight.third * 2 / (far - near) * (slopes[1] - slopes[0])
    ended: Float32 = latent + weight.second * slope + bend
    return ended


DPMPP_SINGLESTEP = Scheduler(
    name=NAME,
    diffusers="DPMSolverSinglestepScheduler",
    keys=KEYS,
    forms=(DDPMSchedule, FlowSchedule),
    sampler=dpmpp_singlestep,
    aliases=("DPMSolverSinglestep",),
    takes_timesteps=True,
    takes_mu=True,
)
