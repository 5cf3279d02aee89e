from __future__ import annotations

import doctest
import runpy
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_schedulers import (
    SCHEDULERS,
    DDPMSchedule,
    FromImage,
    Model,
    NoiseSchedule,
    Resumed,
    ScheduleError,
    Step,
    registry,
    resolve,
    sample,
)

POINT = np.zeros(3, np.float32)
#: Those that integrate a network of Stable Diffusion's family.
DDPM_NAMES = [name for name, scheduler in SCHEDULERS.items() if DDPMSchedule in scheduler.forms]
#: Those that add noise, and so ask for some.
STOCHASTIC = {"ddpm", "euler_ancestral", "dpm_2_ancestral", "dpmpp_2m_sde", "dpmpp_sde", "lcm", "tcd"}


def identity(latent: np.ndarray, _: float) -> np.ndarray:
    return latent


def start(name: str, config: dict, *, count: object = 5, model: Model = identity) -> Iterator[Step]:
    noise = np.full((2, 4), 0.5, np.float32)
    return sample(
        name,
        model,
        noise,
        NoiseSchedule.from_config(config),
        num_inference_steps=count,
        step_noise=repeat(np.zeros((2, 4), np.float32)),
    )


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("PNDM", "pndm"),
        ("DDIM", "ddim"),
        ("EulerDiscrete", "euler"),
        ("DPMSolverMultistep", "dpmpp_2m"),
        ("dpmpp", "dpmpp_2m"),
        ("PNDMScheduler", "pndm"),
        ("DPMPP_2M", "dpmpp_2m"),
        ("EulerAncestralDiscreteScheduler", "euler_ancestral"),
        ("Euler_a", "euler_ancestral"),
        ("LCMScheduler", "lcm"),
    ],
)
def test_known_spellings_resolve(spelling: str, name: str) -> None:
    assert resolve(spelling) == name


def test_unknown_sampler_lists_the_choices() -> None:
    with pytest.raises(ScheduleError, match=r"pndm, ddim, .*dpmpp_2m.*'euler_b'"):
        resolve("euler_b")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"beta_schedule": "cubic"}, "beta_schedule"),
        ({"prediction_type": "x0"}, "prediction_type"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps"),
        ({"num_train_timesteps": 99.5}, "whole"),
        ({"beta_start": 0.5, "beta_end": 0.1}, "beta_end"),
        ({"beta_end": float("nan")}, "finite"),
        ({"trained_betas": [0.1, 0.2]}, "1000 trained_betas"),
        ({"trained_betas": "many"}, "list of numbers"),
        ({"trained_betas": [2.0] * 1000}, "trained_betas"),
        ({"rescale_betas_zero_snr": "yes"}, "true or false"),
    ],
)
def test_malformed_configs_are_refused(config: dict, said: str) -> None:
    with pytest.raises(ScheduleError, match=said):
        NoiseSchedule.from_config(config)


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("ddim", {"timestep_spacing": "log"}, "timestep_spacing"),
        ("ddim", {"thresholding": 1}, "thresholding"),
        ("ddim", {"thresholding": True, "sample_max_value": 0}, "sample_max_value"),
        ("ddim", {"shift": 3.0}, "'shift' for scheduler 'ddim'"),
        ("ddim", {"beta_strat": 0.1}, "beta_strat"),
        ("ddim", {"use_flow_sigmas": True}, "noise schedule of DDPMSchedule"),
        ("ddim", {"clip_sample": 1}, "clip_sample"),
        ("ddim", {"steps_offset": 900}, "timesteps from 0 to 999"),
        ("ddim", {"rescale_betas_zero_snr": True}, "epsilon"),
        ("pndm", {"prediction_type": "sample"}, "prediction_type"),
        ("pndm", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ("euler", {"use_exponential_sigmas": True, "use_beta_sigmas": True}, "one of use_exponential_sigmas"),
        ("euler", {"interpolation_type": "cubic"}, "interpolation_type"),
        ("euler", {"timestep_type": "odd"}, "timestep_type"),
        ("euler", {"final_sigmas_type": "one"}, "final_sigmas_type"),
        ("euler", {"use_karras_sigmas": True, "sigma_min": -1.0}, "sigma_min"),
        ("dpmpp_2m", {"algorithm_type": "dpmsolver"}, "final_sigmas_type 'sigma_min'"),
        ("dpmpp_2m", {"algorithm_type": "dpmsolver+++"}, "algorithm_type"),
        ("dpmpp_2m", {"algorithm_type": "sde-dpmsolver", "solver_order": 3}, "solver_order 1 or 2"),
        ("dpmpp_2m", {"solver_order": 4}, "solver_order"),
        ("dpmpp_2m", {"solver_type": "cubic"}, "solver_type"),
        ("dpmpp_2m", {"use_flow_sigmas": True, "use_dynamic_shifting": True}, "expected mu"),
        ("dpmpp_2m", {"prediction_type": "flow_prediction"}, "expected use_flow_sigmas"),
        ("dpmpp_singlestep", {"algorithm_type": "sde-dpmsolver"}, "sde-dpmsolver"),
        ("unipc", {"solver_p": {"_class_name": "DDIMScheduler"}}, "solver_p"),
        ("unipc", {"disable_corrector": [0.5]}, "disable_corrector"),
        ("unipc", {"shift_terminal": 0.1}, "shift_terminal"),
        ("unipc", {"lower_order_final": False}, "lower_order_final"),
        ("unipc", {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, "final_sigmas_type"),
        ("ddpm", {"variance_type": "learned_range"}, "variance_type"),
        ("dpm_2", {"prediction_type": "sample"}, "prediction_type"),
        ("dpmpp_sde", {"noise_sampler_seed": 3}, "noise_sampler_seed"),
        ("flow_match_euler", {"use_flow_sigmas": True, "flow_shift": 3.0}, "flow_shift"),
        ("flow_match_euler", {"use_flow_sigmas": True, "invert_sigmas": True}, "invert_sigmas"),
        ("flow_match_euler", {}, "noise schedule of FlowSchedule"),
        ("edm_euler", {}, "noise schedule of EDMSchedule"),
        ("dpmpp_2m", {"variance_type": "learned_range"}, "variance_type"),
        ("dpmpp_2m", {"use_lu_lambdas": True, "use_karras_sigmas": True}, "one of use_lu_lambdas"),
        ("dpmpp_2m", {"lambda_min_clipped": 90.0}, "lambda_min_clipped"),
        ("lcm", {"clip_sample": 1}, "clip_sample"),
        ("lcm", {"rescale_betas_zero_snr": True}, "epsilon"),
        ("lcm", {"original_inference_steps": 4}, "at most 4 steps for lcm"),
        ("lcm", {"original_inference_steps": 2000}, "original_inference_steps"),
    ],
)
def test_settings_that_a_sampler_cannot_follow_are_refused_before_the_model_runs(
    name: str, config: dict, said: str
) -> None:
    def never(latent: np.ndarray, timestep: float) -> np.ndarray:
        raise AssertionError("the model ran")

    with pytest.raises(ScheduleError, match=said):
        start(name, config, model=never)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("count", [0, -1, 1001, 2.5, True])
def test_step_counts_outside_the_schedule_are_refused(name: str, count: object) -> None:
    with pytest.raises(ScheduleError, match="num_inference_steps from 1 to 1000"):
        start(name, {}, count=count)


def test_runge_kutta_needs_four_steps() -> None:
    with pytest.raises(ScheduleError, match="4 steps or more"):
        start("pndm", {}, count=3)


def test_a_model_output_of_another_shape_is_refused() -> None:
    steps = start("ddim", {}, model=lambda latent, _: latent[:1])
    with pytest.raises(ScheduleError, match=r"\(2, 4\), got \(1, 4\)"):
        next(steps)


def test_integer_noise_is_refused() -> None:
    with pytest.raises(ScheduleError, match="floating-point"):
        sample("ddim", identity, np.zeros(2, int), NoiseSchedule.from_config({}), num_inference_steps=2)


@pytest.mark.parametrize("name", DDPM_NAMES)
def test_an_engine_may_reuse_its_buffers_and_noise_stays_as_it_was(name: str) -> None:
    schedule = NoiseSchedule.from_config({"skip_prk_steps": True, "clip_sample": False})
    noise = np.linspace(-1, 1, 6, dtype=np.float32)
    buffer = np.empty_like(noise)

    def reusing(latent: np.ndarray, timestep: float) -> np.ndarray:
        buffer[:] = np.tanh(latent) + np.float32(timestep / 1000)
        return buffer

    def fresh(latent: np.ndarray, timestep: float) -> np.ndarray:
        return np.tanh(latent) + np.float32(timestep / 1000)

    options = {"num_inference_steps": 6, "step_noise": repeat(noise)}
    reused = [s.latent for s in sample(name, reusing, noise, schedule, **options)]
    expected = [s.latent for s in sample(name, fresh, noise, schedule, **options)]
    np.testing.assert_array_equal(reused, expected)
    np.testing.assert_array_equal(noise, np.linspace(-1, 1, 6, dtype=np.float32))


@pytest.mark.parametrize("name", sorted(set(DDPM_NAMES) - {"deis", "tcd"}))
def test_a_network_that_knows_the_answer_is_believed(name: str) -> None:
    """The exact noise of a point leads back to the point, and every step's preview is the point."""
    schedule = NoiseSchedule.from_config(
        {"skip_prk_steps": True, "clip_sample": False, "set_alpha_to_one": True}
    )
    point = np.float32([0.3, -1.2, 2.0])
    table = schedule.sigmas().astype(np.float64)

    def model(latent: np.ndarray, timestep: float) -> np.ndarray:
        sigma = np.interp(timestep, np.arange(1000), table)
        return (latent * np.hypot(sigma, 1) - point) / sigma

    noise = np.float32([1, -1, 0.5])
    steps = list(sample(name, model, noise, schedule, num_inference_steps=20, step_noise=repeat(noise[::-1])))
    for step in steps:
        np.testing.assert_allclose(step.denoised, point, atol=2e-3)
    np.testing.assert_allclose(steps[-1].latent, point, atol=2e-3)


@pytest.mark.parametrize(
    ("start", "options", "said"),
    [
        (FromImage(POINT, POINT, 0.1), {}, "at least one of 5 steps"),
        (Resumed(POINT, 0.9999), {}, "at least one of 5 steps"),
        (Resumed(POINT, 0.5), {"end": 0.5}, "at least one of 5 steps"),
        (POINT, {"end": 0.0}, "an end above 0"),
        (POINT, {"end": float("nan")}, "an end above 0"),
        (FromImage(POINT.astype(int), POINT, 0.5), {}, "image of a floating-point dtype"),
    ],
)
@pytest.mark.parametrize("name", DDPM_NAMES)
def test_spans_without_a_step_are_refused(name: str, start: object, options: dict, said: str) -> None:
    if name in ("lcm", "tcd") and isinstance(start, FromImage) and start.strength == 0.1:
        said, options = f"at most 5 steps for {name}", {**options, "num_inference_steps": 6}
    schedule = NoiseSchedule.from_config({"skip_prk_steps": True})
    with pytest.raises(ScheduleError, match=said):
        sample(name, identity, start, schedule, **{"num_inference_steps": 5, **options})


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.5, float("nan")])
def test_strengths_outside_the_range_are_refused(strength: float) -> None:
    with pytest.raises(ScheduleError, match="strength above 0 and up to 1"):
        FromImage(POINT, POINT, strength)


@pytest.mark.parametrize("progress", [0.0, 1.0, -0.5, float("nan")])
def test_nothing_is_resumed_at_an_end(progress: float) -> None:
    with pytest.raises(ScheduleError, match="progress between 0 and 1"):
        Resumed(POINT, progress)


def test_an_image_and_its_noise_have_one_shape() -> None:
    with pytest.raises(ScheduleError, match=r"noise of shape \(3,\), got \(2,\)"):
        FromImage(POINT, POINT[:2], 0.5)


@pytest.mark.parametrize("start", [FromImage(POINT, POINT, 0.5), Resumed(POINT, 0.5)])
def test_runge_kutta_starts_from_noise(start: object) -> None:
    with pytest.raises(ScheduleError, match="whole schedule from noise"):
        sample("pndm", identity, start, NoiseSchedule.from_config({}), num_inference_steps=8)


@pytest.mark.parametrize(
    ("noises", "said"), [([POINT], "got too few"), ([POINT[:2]], r"shape \(3,\), got \(2,\)")]
)
@pytest.mark.parametrize("name", sorted(STOCHASTIC))
def test_step_noise_is_held_to_number_and_shape(name: str, noises: list, said: str) -> None:
    steps = sample(
        name, identity, POINT, NoiseSchedule.from_config({}), num_inference_steps=4, step_noise=noises
    )
    with pytest.raises(ScheduleError, match=said):
        list(steps)


@pytest.mark.parametrize("name", sorted(set(DDPM_NAMES) - STOCHASTIC))
def test_deterministic_samplers_draw_no_noise(name: str) -> None:
    def never() -> Iterator[np.ndarray]:
        raise AssertionError("noise was drawn")
        yield

    schedule = NoiseSchedule.from_config({"skip_prk_steps": True})
    list(sample(name, identity, POINT, schedule, num_inference_steps=4, step_noise=never()))


@pytest.mark.parametrize("name", ["ddim", "tcd"])
def test_without_eta_no_noise_is_drawn(name: str) -> None:
    schedule = NoiseSchedule.from_config({})
    list(sample(name, identity, POINT, schedule, num_inference_steps=4, step_noise=(), eta=0))


def test_zero_terminal_snr_leaves_no_signal_and_a_finite_sigma() -> None:
    schedule = NoiseSchedule.from_config({"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})
    assert schedule.alphas_cumprod[-1] == 0
    assert schedule.sigmas()[-1] == 4096


@given(
    start=st.floats(1e-5, 0.01),
    rise=st.floats(0, 0.02),
    kind=st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
    count=st.integers(2, 2000),
)
def test_signal_only_falls(start: float, rise: float, kind: str, count: int) -> None:
    schedule = NoiseSchedule.from_config(
        {"beta_start": start, "beta_end": start + rise, "beta_schedule": kind, "num_train_timesteps": count}
    )
    assert schedule.alphas_cumprod.shape == (count,)
    assert (np.diff(schedule.alphas_cumprod) <= 0).all()
    assert not schedule.alphas_cumprod.flags.writeable


def test_doctests_hold() -> None:
    assert doctest.testmod(registry) == doctest.TestResults(failed=0, attempted=1)


def test_the_readme_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    block = tmp_path / "readme.py"
    block.write_text(readme.split("```python\n")[1].split("```")[0])
    runpy.run_path(str(block))
    assert capsys.readouterr().out.startswith("1/20 ")
