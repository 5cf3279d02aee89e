"""Order of convergence on Gaussian data, where the exact denoiser and the exact trajectory are known.

For ``x_0 ~ N(MEAN, SPREAD**2)`` and ``x = x_0 + sigma noise``, the denoiser is
``MEAN + SPREAD**2 / (SPREAD**2 + sigma**2) (x - MEAN)`` and the probability-flow ODE moves ``x - MEAN`` in
proportion to ``sqrt(SPREAD**2 + sigma**2)``.
"""

from __future__ import annotations

import numpy as np
import pytest
from sd_schedulers import NoiseSchedule, sample

MEAN, SPREAD, TRAIN = 0.3, 1.5, 4000

#: Starts at sigma = 1, so that the trajectory is smooth in the timestep (near 0, sigma goes like its root).
CONFIG = {
    "num_train_timesteps": TRAIN,
    "trained_betas": [0.5] + [2.0 / TRAIN] * (TRAIN - 1),
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "clip_sample": False,
    "final_sigmas_type": "sigma_min",
    "lower_order_final": False,
}


#: Their latent is ``x_0 + sigma noise``, the others' has variance 1.
IN_SIGMA = ("euler", "heun", "dpm_2", "lms")
#: They end without noise, one step of first order after the last level of this trajectory.
END_CLEAN = ("heun", "dpm_2", "lms")


def error(name: str, spacing: str, count: int, **config: object) -> float:
    """Largest distance from the exact end of the trajectory, in units of x_0 + sigma noise."""
    schedule = NoiseSchedule.from_config({**CONFIG, "timestep_spacing": spacing, **config})
    table = schedule.sigmas().astype(np.float64)

    def level(timestep: float) -> float:
        return float(np.interp(timestep, np.arange(TRAIN), table))

    def epsilon(latent: np.ndarray, timestep: float) -> np.ndarray:
        sigma = level(timestep)
        x = latent.astype(np.float64) * np.hypot(sigma, 1)
        denoised = MEAN + SPREAD**2 / (SPREAD**2 + sigma**2) * (x - MEAN)
        return (x - denoised) / sigma

    noise = np.linspace(-2, 2, 9, dtype=np.float32)
    steps = list(sample(name, epsilon, noise, schedule, num_inference_steps=count))
    start = level(steps[0].timestep)
    vp, last = name not in IN_SIGMA, steps[-2 if name in END_CLEAN else -1]
    x_start = noise * np.hypot(start, 1) if vp else noise * start
    x_end = last.latent * np.hypot(table[0], 1) if vp else last.latent
    shrunk = np.sqrt((SPREAD**2 + table[0] ** 2) / (SPREAD**2 + start**2))
    return float(np.abs(x_end - (MEAN + (x_start - MEAN) * shrunk)).max())


def slope(name: str, spacing: str, counts: tuple[int, ...], **config: object) -> float:
    errors = [error(name, spacing, count, **config) for count in counts]
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])


@pytest.mark.parametrize(
    ("name", "spacing", "order"),
    [
        ("ddim", "leading", 1.0),
        ("euler", "linspace", 1.0),
        ("dpmpp_2m", "linspace", 2.0),
        ("pndm", "leading", 2.0),
    ],
)
def test_error_falls_with_the_stated_order(name: str, spacing: str, order: int) -> None:
    # PNDM extrapolates with order 4 from a start of order 2, which shows from 20 steps on.
    counts = (20, 40, 80) if name == "pndm" else (10, 20, 40, 80, 160)
    assert slope(name, spacing, counts) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize(
    ("name", "config", "order"),
    [
        ("heun", {}, 2.0),
        ("dpm_2", {}, 2.0),
        ("lms", {}, 2.0),
        ("deis", {}, 2.0),
        ("unipc", {"solver_order": 1, "disable_corrector": [*range(99)]}, 1.0),
        ("unipc", {}, 3.0),
        ("dpmpp_singlestep", {}, 2.0),
        ("dpmpp_singlestep", {"solver_order": 3, "solver_type": "heun"}, 3.0),
        ("dpmpp_2m", {"algorithm_type": "dpmsolver"}, 2.0),
    ],
)
def test_error_falls_at_least_with_the_order_of_the_solver(name: str, config: dict, order: float) -> None:
    assert slope(name, "linspace", (9, 18, 36, 72), **config) > order - 0.3


FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "num_train_timesteps": 100_000}


def flow_error(name: str, count: int, shift: float) -> float:
    """Largest distance from the exact end of the straight lines' ODE, at the picture.

    At ``(1 - s) x_0 + s noise`` the deviation is ``d(s) = sqrt(((1 - s) SPREAD)**2 + s**2)`` and the ODE
    moves ``x - (1 - s) MEAN`` in proportion to it.
    """
    config = {**FLOW, "flow_shift": shift}
    if name == "flow_match_euler":
        config = {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 100_000,
            "shift": shift,
        }

    def variance(sigma: float) -> float:
        return ((1 - sigma) * SPREAD) ** 2 + sigma**2

    def velocity(latent: np.ndarray, timestep: float) -> np.ndarray:
        sigma = timestep / 100_000
        centred = (latent.astype(np.float64) - (1 - sigma) * MEAN) / variance(sigma)
        return sigma * centred - (MEAN + (1 - sigma) * SPREAD**2 * centred)

    noise = np.linspace(-2, 2, 9, dtype=np.float32)
    steps = list(sample(name, velocity, noise, NoiseSchedule.from_config(config), num_inference_steps=count))
    start = steps[0].timestep / 100_000
    deviation = (noise - (1 - start) * MEAN) / np.sqrt(variance(start))
    return float(np.abs(steps[-1].latent - (MEAN + SPREAD * deviation)).max())


@pytest.mark.parametrize(
    ("name", "order"),
    [("flow_match_euler", 1.0), ("dpmpp_2m", 2.0), ("dpmpp_singlestep", 2.0), ("unipc", 2.0)],
)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flows_end_where_the_exact_solution_does(name: str, order: float, shift: float) -> None:
    counts = (80, 160, 320)
    errors = [flow_error(name, count, shift) for count in counts]
    assert errors[-1] < 0.03
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] > order - 0.3


def spread_error(count: int) -> float:
    """Distance of ``euler_ancestral``'s variance from what is due after its last step, to sigma = 0.

    The sampler is linear in its noises here, so unit vectors in their place give its standard deviations.
    """
    schedule = NoiseSchedule.from_config({**CONFIG, "timestep_spacing": "linspace"})
    table = schedule.sigmas().astype(np.float64)

    def epsilon(latent: np.ndarray, timestep: float) -> np.ndarray:
        sigma = float(np.interp(timestep, np.arange(TRAIN), table))
        x = latent.astype(np.float64) * np.hypot(sigma, 1)
        return (x - SPREAD**2 / (SPREAD**2 + sigma**2) * x) / sigma

    noises = np.eye(count + 1, dtype=np.float32)
    start = noises[0] * np.float32(np.sqrt(SPREAD**2 + table[-1] ** 2) / table[-1])
    *_, last = sample(
        "euler_ancestral", epsilon, start, schedule, num_inference_steps=count, step_noise=noises[1:]
    )
    denoised = SPREAD**4 / (SPREAD**2 + table[0] ** 2)
    return abs(float(np.square(last.latent, dtype=np.float64).sum()) - denoised)


def test_ancestral_noise_keeps_the_spread_of_the_data() -> None:
    counts = (10, 20, 40, 80)
    errors = [spread_error(count) for count in counts]
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(1, abs=0.3)


def test_multistep_is_worth_its_history() -> None:
    assert error("pndm", "leading", 20) < error("ddim", "leading", 20) / 100
    assert error("dpmpp_2m", "linspace", 20) < error("euler", "linspace", 20) / 100


def edm_error(name: str, count: int) -> float:
    """Largest distance from the exact trajectory at the least noise, with EDM's preconditioning around it."""
    low, high, data = 0.1, 10.0, 0.5
    schedule = NoiseSchedule.from_config(
        {"_class_name": EDM[name], "sigma_min": low, "sigma_max": high, "sigma_data": data}
    )

    def network(latent: np.ndarray, timestep: float) -> np.ndarray:
        sigma = np.exp(4 * timestep)
        length = np.hypot(sigma, data)
        x = latent.astype(np.float64) * length
        denoised = MEAN + SPREAD**2 / (SPREAD**2 + sigma**2) * (x - MEAN)
        return (denoised - (data / length) ** 2 * x) * length / (sigma * data)

    noise = np.linspace(-2, 2, 9, dtype=np.float32)
    steps = list(sample(name, network, noise, schedule, num_inference_steps=count))
    start = noise * np.hypot(high, 1)
    shrunk = np.hypot(SPREAD, low) / np.hypot(SPREAD, high)
    return float(np.abs(steps[-2].latent - (MEAN + (start - MEAN) * shrunk)).max())


EDM = {"edm_euler": "EDMEulerScheduler", "edm_dpmpp_2m": "EDMDPMSolverMultistepScheduler"}


@pytest.mark.parametrize(("name", "order"), [("edm_euler", 1.0), ("edm_dpmpp_2m", 2.0)])
def test_edm_falls_with_the_stated_order(name: str, order: float) -> None:
    counts = (20, 40, 80, 160)
    errors = [edm_error(name, count) for count in counts]
    assert -np.polyfit(np.log(counts), np.log(errors), 1)[0] == pytest.approx(order, abs=0.3)
