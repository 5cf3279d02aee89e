"""DEIS: the noise as a polynomial in ``log(sigma / alpha)``, integrated exactly to the next level.

Source: arXiv 2204.13902 (Fast Sampling of Diffusion Models with Exponential Integrator), log-rho
Adams-Bashforth; diffusers ``DEISMultistepScheduler``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sd_schedulers.clipping import Clip, clip_of
from sd_schedulers.dpm_solver import FEW_STEPS, SOLVER_KEYS, check_flow, refuse_equal_levels
from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32, divided
from sd_schedulers.sampling import Model, Scheduler, Step
from sd_schedulers.schedule import DDPMSchedule, FlowSchedule, NoiseSchedule
from sd_schedulers.settings import ConfigKeys
from sd_schedulers.spacing import SigmaGrid, flow_grid, solver_sigmas, spaced_timesteps
from sd_schedulers.start import Span

KEYS = ConfigKeys(
    honoured=SOLVER_KEYS | {"timestep_spacing", "steps_offset"},
    # diffusers reads what DPM-Solver and UniPC call their own as the only kind that this class has.
    limited={
        "algorithm_type": ("deis", "dpmsolver", "dpmsolver++"),
        "solver_type": ("logrho", "midpoint", "heun", "bh1", "bh2"),
        "rescale_betas_zero_snr": (False,),
    },
)


def deis(model: Model, schedule: NoiseSchedule, span: Span) -> Iterator[Step]:
    """Multistep sampling of ``solver_order`` (2) in ``n`` evaluations.

    It ends at the level of the first timestep, and at the last of levels that are respaced or a flow's.

    Raises:
        ScheduleError: settings that contradict each other, or as many steps as there are timesteps.
    """
    order = schedule.settings.count("solver_order", 2, low=1, high=3)
    lower = schedule.settings.flag("lower_order_final", default=True)
    grid = _grid(schedule, span)
    refuse_equal_levels(grid, "deis")
    window = span.window(grid.timesteps, schedule)
    latent = span.latent(at=schedule.level(grid.sigmas[window.start]))
    few = lower and len(grid.timesteps) < FEW_STEPS
    clip = clip_of(schedule.settings)
    return _steps(model, latent, schedule, grid, window, order, clip, few=few)


def _grid(schedule: NoiseSchedule, span: Span) -> SigmaGrid:
    if isinstance(schedule, FlowSchedule):
        check_flow(schedule, span.mu)
        grid = flow_grid(schedule, span.count, span.mu)
        return SigmaGrid(grid.timesteps, (*grid.sigmas[:-1], grid.sigmas[-2]))
    if not isinstance(schedule, DDPMSchedule):
        raise ScheduleError(f"expected a DDPM or flow-matching schedule, got {type(schedule).__name__}")
    spaced = spaced_timesteps(schedule, span.count, default="linspace", without_last=True).round()
    timesteps, sigmas, respaced = solver_sigmas(schedule, spaced)
    return SigmaGrid.of(timesteps, sigmas, sigmas[-1] if respaced else float(schedule.sigmas()[0]))


def _steps(
    model: Model,
    latent: Float32,
    schedule: NoiseSchedule,
    grid: SigmaGrid,
    window: range,
    highest: int,
    clip: Clip | None,
    *,
    few: bool,
) -> Iterator[Step]:
    count, levels = len(grid.timesteps), [schedule.level(sigma) for sigma in grid.sigmas]
    history: tuple[Float32, ...] = ()
    for index in window:
        here, there, timestep = levels[index], levels[index + 1], grid.timesteps[index]
        output = model(schedule.network_input(latent, at=here), timestep)
        estimate = schedule.prediction.denoised(output, latent, at=here)
        if clip is not None:
            estimate = clip(estimate)
        history = (divided(latent - here.alpha * estimate, here.sigma), *history[: highest - 1])
        order = min(len(history), count - index) if few else len(history)
        past = [levels[index - number] for number in range(order)]
        integrals = _integrals([-level.log_snr for level in past], -there.log_snr)
        latent = divided(latent, here.alpha)
        for weight, noise in zip(integrals, history, strict=False):
            latent = latent + weight * noise
        latent = there.alpha * latent
        yield Step(index - window.start, len(window), timestep, latent, estimate)


def _integrals(nodes: Sequence[float], end: float) -> list[float]:
    """Integral over ``rho`` of the Lagrange polynomials of ``nodes`` in ``log(rho)``, to ``exp(end)``.

    From ``exp(nodes[0])``, newest first; ``nodes`` and ``end`` are ``log(sigma / alpha)``, up to three.
    """
    start = nodes[0]

    def moments(log: float) -> tuple[float, float, float]:
        # Antiderivatives of 1, log(rho) - start and (log(rho) - start)**2.
        shifted, rho = log - start, math.exp(log)
        return rho, rho * (shifted - 1), rho * (shifted**2 - 2 * shifted + 2)

    definite = [after - before for after, before in zip(moments(end), moments(start), strict=True)]
    integrals = []
    for number, node in enumerate(nodes):
        others = [other - start for place, other in enumerate(nodes) if place != number]
        scale = math.prod((node - start) - other for other in others)
        coefficients = {0: (1.0,), 1: (-sum(others), 1.0), 2: (math.prod(others), -sum(others), 1.0)}
        terms = zip(coefficients[len(others)], definite, strict=False)
        integrals.append(sum(factor * moment for factor, moment in terms) / scale)
    return integrals


DEIS = Scheduler(
    name="deis",
    diffusers="DEISMultistepScheduler",
    keys=KEYS,
    forms=(DDPMSchedule, FlowSchedule),
    sampler=deis,
    aliases=("DEISMultistep",),
    takes_mu=True,
)
