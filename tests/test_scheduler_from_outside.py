"""A scheduler in one file outside the packages: its config keys, its generator, one call that adds it.

It is DDIM without noise, with a key of its own for how the timesteps are spread; so DDIM is its oracle.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sd_runtime import Pipeline
from sd_schedulers import (
    SCHEDULERS,
    ConfigKeys,
    DDPMSchedule,
    Level,
    Model,
    NoiseSchedule,
    ScheduleError,
    Scheduler,
    Span,
    Step,
    register,
    sample,
)

KEYS = ConfigKeys(
    honoured=frozenset(
        ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
    )
    | {"spread_power", "steps_offset"},
    limited={"timestep_spacing": ("leading",), "clip_sample": (False,)},
)
CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


def power_ddim(model: Model, schedule: DDPMSchedule, span: Span) -> Iterator[Step]:
    power = schedule.settings.number("spread_power", 1.0, low=0.1, high=10)
    offset = schedule.settings.count("steps_offset", 0, low=0, high=1)
    total = schedule.num_train_timesteps
    spread = (np.arange(span.count) / span.count) ** power * (total // span.count * span.count) + offset
    timesteps = spread[::-1].round().astype(int).tolist()
    window = span.window(timesteps, schedule)
    levels = [Level.variance_preserving(schedule.alpha_cumprod(timestep)) for timestep in timesteps]
    last = timesteps[-1] - total // span.count
    levels.append(Level.variance_preserving(schedule.alpha_cumprod(last)))
    latent = span.latent(at=levels[window.start])

    def steps(latent):
        for index in window:
            here, there = levels[index : index + 2]
            output = model(latent, timesteps[index])
            clean = schedule.prediction.denoised(output, latent, at=here)
            noise = schedule.prediction.noise(output, latent, at=here)
            latent = there.alpha * clean + there.sigma * noise
            yield Step(index - window.start, len(window), timesteps[index], latent, clean)

    return steps(latent)


POWER_DDIM = Scheduler(
    name="power_ddim",
    diffusers=None,
    keys=KEYS,
    forms=(DDPMSchedule,),
    sampler=power_ddim,
    aliases=("PowerDDIM",),
)


@pytest.fixture(scope="module", autouse=True)
def _registered():
    if POWER_DDIM.name not in SCHEDULERS:
        register(POWER_DDIM)


def last_latent(name: str, **config: object) -> np.ndarray:
    schedule = NoiseSchedule.from_config({**CONFIG, "set_alpha_to_one": False, **config})
    noise = np.linspace(-2, 2, 8, dtype=np.float32)
    *_, last = sample(
        name, lambda latent, t: np.tanh(latent) + t / 1000, noise, schedule, num_inference_steps=9
    )
    return last.latent


def test_it_samples_as_its_oracle_and_honours_its_own_key() -> None:
    np.testing.assert_allclose(last_latent("PowerDDIM"), last_latent("ddim"), rtol=1e-6)
    assert np.abs(last_latent("power_ddim", spread_power=2.0) - last_latent("power_ddim")).max() > 1e-3


def test_its_limits_are_held_and_its_keys_are_known_to_the_family() -> None:
    with pytest.raises(ScheduleError, match=r"timestep_spacing 'leading' for scheduler 'power_ddim'"):
        last_latent("power_ddim", timestep_spacing="trailing")
    with pytest.raises(ScheduleError, match="spread_power"):
        last_latent("power_ddim", spread_power=0)
    np.testing.assert_array_equal(last_latent("ddim", spread_power=2.0), last_latent("ddim"))


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ScheduleError, match="'power_ddim', which is 'power_ddim'"):
        register(POWER_DDIM)


def test_it_draws_a_picture(bundle) -> None:
    pipeline = Pipeline.open(bundle)
    drawn, expected = (
        pipeline.generate(
            "a red circle on a white background", scheduler=name, num_inference_steps=10, seed=3
        )[0]
        for name in ("PowerDDIM", "ddim")
    )
    assert drawn.settings.scheduler == "power_ddim"
    np.testing.assert_allclose(np.asarray(drawn.image, int), np.asarray(expected.image, int), atol=1)
