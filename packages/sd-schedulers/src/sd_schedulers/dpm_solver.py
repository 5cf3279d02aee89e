"""DPM-Solver and DPM-Solver++: one step of the exponential integrator, in log SNR, by up to third order.

The multistep and the singlestep schedulers, and EDM's, take their steps here; they differ in which outputs
they combine. Notation: ``h`` is the step in ``log(alpha / sigma)``; ``first``, ``second`` and ``third``
weight the output and its first and second differences.

Source: arXiv 2206.00927 (DPM-Solver); arXiv 2211.01095 (DPM-Solver++), appendix A for the SDE; diffusers'
``DPMSolverMultistepScheduler`` for the names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from sd_schedulers.clipping import THRESHOLD_KEYS, Clip
from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32, Level, divided
from sd_schedulers.sampling import Model, Step
from sd_schedulers.schedule import FlowSchedule, NoiseSchedule
from sd_schedulers.settings import Settings
from sd_schedulers.spacing import SCHEDULE_KEYS, SIGMA_KEYS, SigmaGrid
from sd_schedulers.start import Draw

ALGORITHMS: Final = ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver")
#: What DDPM configs say of a network that predicts no variance.
FIXED_VARIANCES: Final = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
#: Below this many steps, the last ones are of lower order for stability.
FEW_STEPS: Final = 15

#: Config keys of a flow-matching schedule, as the solvers in log SNR read it.
FLOW_KEYS: Final = frozenset(("use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type"))
#: Config keys that the solvers in log SNR have in common.
SOLVER_KEYS: Final = (
    SCHEDULE_KEYS | SIGMA_KEYS | FLOW_KEYS | THRESHOLD_KEYS | {"solver_order", "lower_order_final"}
)


@dataclass(frozen=True, slots=True)
class Solver:
    """Which of the solvers a config means."""

    algorithm: str
    order: int
    midpoint: bool
    lower_order_final: bool

    @classmethod
    def read(cls, settings: Settings, *, lower_order_final: bool, sde: bool = False) -> Solver:
        """From a config; ``sde`` takes the stochastic form whatever the config says.

        Raises:
            ScheduleError: a value is unknown, or a combination that nobody has defined.
        """
        # DEIS and UniPC configs name their own algorithms; diffusers reads these names as its defaults.
        algorithm = settings.choice("algorithm_type", "dpmsolver++", (*ALGORITHMS, "deis"))
        algorithm = "dpmsolver++" if algorithm == "deis" else algorithm
        if sde and not algorithm.startswith("sde-"):
            algorithm = f"sde-{algorithm}"
        kind = settings.choice("solver_type", "midpoint", ("midpoint", "heun", "logrho", "bh1", "bh2"))
        order = settings.count("solver_order", 2, low=1, high=3)
        if algorithm == "sde-dpmsolver" and order == 3:
            raise ScheduleError("expected solver_order 1 or 2 with algorithm_type 'sde-dpmsolver', got 3")
        lower = settings.flag("lower_order_final", default=lower_order_final)
        return cls(algorithm, order, kind != "heun", lower)

    @property
    def predicts_noise(self) -> bool:
        """Whether it combines predictions of the noise, not of the clean latent."""
        return self.algorithm.endswith("dpmsolver")

    @property
    def is_stochastic(self) -> bool:
        """Whether it adds noise at every step."""
        return self.algorithm.startswith("sde-")


@dataclass(frozen=True, slots=True)
class Weights:
    """What a step makes of the latent, of the output and its differences, and of unit noise.

    ``midpoint`` takes the place of ``second`` in the solvers of second order of that name.
    """

    latent: float
    first: float
    midpoint: float
    second: float
    third: float
    noise: float = 0.0


def weights(algorithm: str, here: Level, there: Level) -> Weights:
    """Exact for an output that is a polynomial in log SNR of the order that is used."""
    h = there.log_snr - here.log_snr
    alpha, sigma = there.alpha, there.sigma
    if h == 0:
        return Weights(1.0, 0.0, 0.0, 0.0, 0.0)
    if algorithm == "dpmsolver++":
        e = math.expm1(-h)
        third = -alpha * ((e + h) / h**2 - 0.5)
        return Weights(sigma / here.sigma, -alpha * e, -0.5 * alpha * e, alpha * (e / h + 1), third)
    if algorithm == "sde-dpmsolver++":
        e, latent = math.expm1(-2 * h), sigma / here.sigma * math.exp(-h)
        second, third = alpha * (e / (2 * h) + 1), -alpha * ((e + 2 * h) / (2 * h) ** 2 + 0.5)
        return Weights(latent, -alpha * e, -0.5 * alpha * e, second, third, sigma * math.sqrt(max(-e, 0)))
    e, latent = math.expm1(h), alpha / here.alpha
    if algorithm == "dpmsolver":
        third = -sigma * ((e - h) / h**2 - 0.5)
        return Weights(latent, -sigma * e, -0.5 * sigma * e, -sigma * (e / h - 1), third)
    noise = sigma * math.sqrt(max(math.expm1(2 * h), 0))
    return Weights(latent, -2 * sigma * e, -sigma * e, -2 * sigma * (e / h - 1), 0.0, noise)


def converted(
    output: Float32, latent: Float32, schedule: NoiseSchedule, at: Level, *, noise: bool, clip: Clip | None
) -> tuple[Float32, Float32]:
    """The estimate of the clean latent, and what the solver combines: that, or the noise."""
    estimate = schedule.prediction.denoised(output, latent, at=at)
    if clip is not None:
        estimate = clip(estimate)
    if not noise:
        return estimate, estimate
    if clip is not None:
        return estimate, divided(latent - at.alpha * estimate, at.sigma)
    return estimate, schedule.prediction.noise(output, latent, at=at)


def multistep(
    model: Model,
    latent: Float32,
    schedule: NoiseSchedule,
    grid: SigmaGrid,
    window: range,
    solver: Solver,
    fresh_noise: Draw,
    *,
    clip: Clip | None,
    euler_at_final: bool,
) -> Iterator[Step]:
    """One evaluation a step, combined with those before it."""
    count, levels = len(grid.timesteps), [schedule.level(sigma) for sigma in grid.sigmas]
    few = solver.lower_order_final and count < FEW_STEPS
    # At no noise, log SNR has no end to extrapolate to.
    first_at_end = euler_at_final or few or grid.sigmas[-1] == 0
    history: tuple[Float32, ...] = ()
    for index in window:
        here, timestep = levels[index], grid.timesteps[index]
        output = model(schedule.network_input(latent, at=here), timestep)
        estimate, outcome = converted(output, latent, schedule, here, noise=solver.predicts_noise, clip=clip)
        history = (outcome, *history[: solver.order - 1])
        order = len(history)
        if index == count - 1 and first_at_end:
            order = 1
        elif index == count - 2 and few:
            order = min(order, 2)
        latent = _multistep_update(latent, history[:order], levels[index - order + 1 : index + 2], solver)
        if solver.is_stochastic:
            fresh = fresh_noise()
            latent = latent + weights(solver.algorithm, here, levels[index + 1]).noise * fresh
        yield Step(index - window.start, len(window), timestep, latent, estimate)


def _multistep_update(
    latent: Float32, history: Sequence[Float32], levels: Sequence[Level], solver: Solver
) -> Float32:
    """``history`` is newest first, at all ``levels`` but the last, which are in the order of time."""
    *past, here, there = levels
    weight = weights(solver.algorithm, here, there)
    latent = weight.latent * latent + weight.first * history[0]
    h = there.log_snr - here.log_snr
    if len(history) == 1 or h == 0:
        return latent
    slope = h / (here.log_snr - past[-1].log_snr) * (history[0] - history[1])
    if len(history) == 2:
        return latent + (weight.midpoint if solver.midpoint else weight.second) * slope
    before = (here.log_snr - past[-1].log_snr) / h
    earlier = (past[-1].log_snr - past[-2].log_snr) / h
    change = slope - divided(history[1] - history[2], earlier)
    slope = slope + before / (before + earlier) * change
    ended: Float32 = latent + weight.second * slope + weight.third / (before + earlier) * change
    return ended


def refuse_equal_levels(grid: SigmaGrid, scheduler: str) -> None:
    """The extrapolation in log SNR divides by the distance between two levels of noise."""
    levels = grid.sigmas[:-1]
    if any(before <= after for before, after in pairwise(levels)):
        raise ScheduleError(
            f"expected noise levels that fall with every step of sampler {scheduler!r}, got equal ones for "
            f"{len(levels)} steps: use fewer steps"
        )


def check_flow(schedule: FlowSchedule, mu: float | None) -> None:
    """Hold a flow-matching config to what the solvers in log SNR make of one.

    Raises:
        ScheduleError: the shift is stated in another class's words, or something else has no meaning here.
    """
    settings = schedule.settings
    if not settings.flag("use_flow_sigmas", default=False):
        raise ScheduleError(
            "expected use_flow_sigmas true (and the shift as flow_shift) in the config of a flow-matching "
            "model for this scheduler, got none: add them, or use flow_match_euler"
        )
    if settings.one_flag(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")) is not None:
        raise ScheduleError("expected use_flow_sigmas alone, got another spacing of noise levels beside it")
    dynamic = settings.flag("use_dynamic_shifting", default=False)
    if dynamic and mu is None:
        raise ScheduleError("expected mu with use_dynamic_shifting, got none: see flow_mu")
    if mu is not None and not dynamic:
        raise ScheduleError("expected use_dynamic_shifting true in the config with mu, got false")
