"""Spacings by name, given noise levels and Align Your Steps, against diffusers' classes set up for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from diffusers_oracle import DDPM_CONFIG, assert_same, class_of, ours, theirs
from sd_schedulers import (
    ALIGN_YOUR_STEPS,
    SAMPLER_NAMES,
    SCHEDULERS,
    SPACINGS,
    DDPMSchedule,
    NoiseSchedule,
    ScheduleError,
    align_your_steps,
    sample,
    sampler_named,
    schedule_type,
    spacing_named,
    with_spacing,
)

CONFIG = {**DDPM_CONFIG, "clip_sample": False, "skip_prk_steps": True}
COUNT = 6
#: Another spacing in the config, which the name has to put aside.
OTHER = {"timestep_spacing": "leading", "steps_offset": 1, "use_exponential_sigmas": True}
HONOURED = [
    (name, spacing.name)
    for name, scheduler in SCHEDULERS.items()
    for spacing in SPACINGS.values()
    if scheduler.diffusers and DDPMSchedule in scheduler.forms and spacing.is_honoured_by(scheduler)
]


@pytest.mark.parametrize(("name", "spacing"), HONOURED)
def test_each_spacing_is_that_of_diffusers(name: str, spacing: str) -> None:
    asked = {
        **CONFIG,
        **{key: value for key, value in OTHER.items() if key in SCHEDULERS[name].keys.honoured},
    }
    key = SPACINGS[spacing].key
    kept = {other: value for other, value in asked.items() if not other.startswith("use_")}
    if key is None:
        timesteps = list(ALIGN_YOUR_STEPS["sd"])
        found = ours(name, with_spacing(asked, name, spacing), 10, timesteps=timesteps)
        assert_same(found, theirs(name, kept, 10, timesteps=timesteps))
        return
    expected = theirs(name, {**kept, key: SPACINGS[spacing].value}, COUNT)
    assert_same(ours(name, with_spacing(asked, name, spacing), COUNT), expected)


@pytest.mark.parametrize("name", ["ddim", "lcm", "edm_euler", "dpmpp_singlestep"])
def test_a_spacing_that_is_not_honoured_is_named(name: str) -> None:
    unhonoured = next(each for each in SPACINGS.values() if not each.is_honoured_by(SCHEDULERS[name]))
    with pytest.raises(ScheduleError, match=rf"for scheduler '{name}', got '{unhonoured.name}'"):
        with_spacing(CONFIG, name, unhonoured.name)


def test_the_web_uis_names_come_back() -> None:
    for spacing in SPACINGS.values():
        if spacing.webui is not None:
            assert spacing_named(spacing.webui.upper()) is spacing
            assert schedule_type("euler", CONFIG, spacing=spacing.name) == spacing.webui
    with pytest.raises(ScheduleError, match=r"expected a spacing of leading, .*; got 'simple'"):
        spacing_named("simple")


@pytest.mark.parametrize(
    ("scheduler", "config", "said"),
    [
        ("euler", {}, None),
        ("euler", {"timestep_spacing": "trailing"}, "SGM Uniform"),
        ("euler", {"timestep_spacing": "trailing", "use_karras_sigmas": True}, "Karras"),
        ("euler_ancestral", {"use_karras_sigmas": True}, None),  # it does not read the key
        ("euler", {"timestep_spacing": "linspace"}, "Uniform"),
        ("dpmpp_2m", {"timestep_spacing": "linspace"}, "SGM Uniform"),
        ("ddim", {"timestep_spacing": "trailing"}, None),
        ("tcd", {}, None),
    ],
)
def test_what_the_web_ui_calls_a_config(scheduler: str, config: Any, said: str | None) -> None:
    assert schedule_type(scheduler, config) == said


def levels(**config: object) -> list[float]:
    """diffusers' own noise levels."""
    scheduler = class_of("euler").from_config({**CONFIG, **config})
    scheduler.set_timesteps(COUNT)
    return [float(sigma) for sigma in scheduler.sigmas]


@pytest.mark.parametrize("last", [0.0, 0.2])
def test_given_noise_levels_are_those_of_diffusers(last: float) -> None:
    sigmas = [14.0, 6.5, 3.9, 1.9, 0.9, 0.4, last]
    assert_same(ours("euler", CONFIG, COUNT, sigmas=sigmas), theirs("euler", CONFIG, COUNT, sigmas=sigmas))


@pytest.mark.parametrize("name", ["euler", "heun"])
def test_given_levels_of_karras_are_karras(name: str) -> None:
    sigmas = levels(use_karras_sigmas=True)
    assert_same(
        ours(name, CONFIG, COUNT, sigmas=sigmas),
        theirs(name, {**CONFIG, "use_karras_sigmas": True}, COUNT),
        tolerance=1e-4,
    )


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("ddim", {"sigmas": [3.0, 0.0]}, "no sigmas for scheduler 'ddim'"),
        ("euler", {"sigmas": [3.0, 2.0, 0.0]}, "expected 2 sigmas"),
        ("euler", {"sigmas": [0.0, 3.0]}, "falling"),
        ("euler", {"sigmas": [float("nan"), 0.0]}, "falling"),
        ("euler", {"sigmas": [3.0, 0.0], "timesteps": [5]}, "timesteps or sigmas, got both"),
        ("dpmpp_2m", {"mu": 0.5}, "a flow-matching schedule with mu, got DDPMSchedule"),
    ],
)
def test_what_would_be_ignored_is_refused(name: str, arguments: Any, said: str) -> None:
    schedule = NoiseSchedule.from_config(CONFIG)
    noise = np.zeros((1, 1, 2, 2), np.float32)
    with pytest.raises(ScheduleError, match=said):
        sample(name, lambda latent, _: latent, noise, schedule, num_inference_steps=1, **arguments)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_align_your_steps_of_other_lengths(family: str) -> None:
    """Interpolated by other code: the table's levels in log sigma, then diffusers' timestep of each."""
    schedule = NoiseSchedule.from_config(CONFIG)
    assert align_your_steps(schedule, family, 10) == ALIGN_YOUR_STEPS[family]
    reference = class_of("euler").from_config(CONFIG)
    table = ((1 - reference.alphas_cumprod) / reference.alphas_cumprod).numpy() ** 0.5
    logs = np.log(table[list(ALIGN_YOUR_STEPS[family])])
    wanted = np.exp(np.interp(np.linspace(0, 9, 17), np.arange(10), logs))
    expected = [round(float(reference._sigma_to_t(sigma, np.log(table)))) for sigma in wanted]
    assert list(align_your_steps(schedule, family, 17)) == expected
    assert expected[0] == 999


@pytest.mark.parametrize("form", [{}, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}])
@pytest.mark.parametrize("timestep", [0.0, 3.0, 500.25, 999.0])
def test_the_noise_level_of_a_timestep(form: Any, timestep: float) -> None:
    for config in ({**CONFIG, **form}, {"_class_name": "FlowMatchEulerDiscreteScheduler"}):
        schedule = NoiseSchedule.from_config(config)
        assert schedule.timestep(schedule.sigma(timestep)) == pytest.approx(timestep, abs=1e-2)


@pytest.mark.parametrize(
    ("sampler", "schedule_type", "expected"),
    [
        ("Euler a", None, ("euler_ancestral", "linspace")),
        ("euler A", "Automatic", ("euler_ancestral", "linspace")),
        ("Euler", "SGM Uniform", ("euler", "trailing")),
        ("DPM++ 2M", "SGM Uniform", ("dpmpp_2m", "linspace")),
        ("DPM++ 2M", "Automatic", ("dpmpp_2m", "karras")),
        ("DPM++ 2M SDE Exponential", None, ("dpmpp_2m_sde", "exponential")),
        ("DPM2 a Karras", None, ("dpm_2_ancestral", "karras")),
        ("DDIM", None, ("ddim", None)),
        ("LCM", "", ("lcm", None)),
    ],
)
def test_samplers_of_the_web_ui(sampler: str, schedule_type: str | None, expected: object) -> None:
    assert sampler_named(sampler, schedule_type) == expected


@pytest.mark.parametrize(
    ("sampler", "schedule_type"), [("Restart", None), ("Euler", "KL"), ("DPM++ 2M", "Uniform")]
)
def test_samplers_that_nothing_here_is(sampler: str, schedule_type: str | None) -> None:
    with pytest.raises(ScheduleError):
        sampler_named(sampler, schedule_type)


def test_names_of_samplers_go_there_and_back() -> None:
    for scheduler, name in SAMPLER_NAMES.items():
        assert sampler_named(name)[0] == scheduler
