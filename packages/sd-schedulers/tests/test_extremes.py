"""Configs at the edge of their numbers: finite latents, or a ScheduleError that names what to change."""

import warnings
from contextlib import suppress
from itertools import repeat

import numpy as np
import pytest
from sd_schedulers import SCHEDULERS, DDPMSchedule, FromNoise, NoiseSchedule, ScheduleError, sample

NAMES = [name for name, scheduler in SCHEDULERS.items() if DDPMSchedule in scheduler.forms]
SOLVERS = ("dpmpp_2m", "dpmpp_2m_sde", "dpmpp_singlestep", "unipc", "deis")
STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE = np.ones((1, 4, 4, 4), np.float32)


def last_latent(name, config, steps):
    schedule = NoiseSchedule.from_config({**STABLE_DIFFUSION, **config})
    taken = sample(
        name,
        lambda latent, _: latent * np.float32(0.1),
        FromNoise(NOISE),
        schedule,
        num_inference_steps=steps,
        step_noise=repeat(NOISE),
    )
    return list(taken)[-1].latent


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"beta_start": 0}, "beta_start"),
        ({"beta_start": 1e-320}, "beta_start"),
        ({"trained_betas": [0.0] * 1000}, "trained_betas"),
        ({"trained_betas": [0.1] * 1000}, "trained_betas"),
        ({"num_train_timesteps": 1_000_000}, "num_train_timesteps"),
    ],
)
def test_no_noise_at_the_start_or_no_signal_at_the_end(config, named):
    with pytest.raises(ScheduleError, match=named):
        NoiseSchedule.from_config({**STABLE_DIFFUSION, **config})


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [997, 999, 1000])
@pytest.mark.parametrize("name", SOLVERS)
def test_as_many_steps_as_there_are_timesteps(name, spacing, steps):
    """Solvers in log SNR divide by the distance of two levels: equal ones are refused at the call."""
    with suppress(ScheduleError):  # and nothing else
        latent = last_latent(name, {"timestep_spacing": spacing}, steps)
        assert np.isfinite(latent).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "config",
    [
        {"beta_end": 0.999},
        {"beta_start": 0.999, "beta_end": 0.999},
        {"num_train_timesteps": 20},
        {"rescale_betas_zero_snr": True},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
        {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True, "solver_order": 3},
        {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
        {"set_alpha_to_one": True},
    ],
    ids=str,
)
def test_every_sampler_ends_in_numbers_or_in_a_schedule_error(name, config):
    for steps in (1, 2, 20):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                latent = last_latent(name, config, steps)
            except ScheduleError:
                continue
        assert np.isfinite(latent).all()


@pytest.mark.parametrize(
    "name", sorted(SCHEDULERS[name].diffusers for name in NAMES if name not in ("dpmpp_2m_sde", "dpmpp_sde"))
)
@pytest.mark.filterwarnings("ignore")
def test_what_a_class_means_by_nothing(name):
    """A key that a config leaves out is what the class that it names has by default."""
    diffusers = pytest.importorskip("diffusers")
    theirs = getattr(diffusers, name)().alphas_cumprod.numpy()
    ours = NoiseSchedule.from_config({"_class_name": name}).alphas_cumprod
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
