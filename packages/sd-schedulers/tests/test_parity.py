"""All schedulers step by step against diffusers' classes: step counts, starts from an image, arguments."""

from __future__ import annotations

import pytest
from diffusers_oracle import DDPM_CONFIG, assert_same, ours, theirs
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_schedulers import (
    ALIGN_YOUR_STEPS,
    SCHEDULERS,
    FlowSchedule,
    NoiseSchedule,
    ScheduleError,
    flow_mu,
    spacing,
)

NAMES = [name for name, scheduler in SCHEDULERS.items() if scheduler.diffusers is not None]
FLOW = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
CONFIGS: dict[str, dict[str, object]] = {
    "pndm": {**DDPM_CONFIG, "skip_prk_steps": True},
    "ddim": {**DDPM_CONFIG, "clip_sample": False},
    "ddpm": {**DDPM_CONFIG, "clip_sample": False},
    "edm_euler": {},
    "edm_dpmpp_2m": {},
    "flow_match_euler": {"shift": 3.0},
}

pytestmark = pytest.mark.filterwarnings("ignore")


def config_of(name: str) -> dict[str, object]:
    return dict(CONFIGS.get(name, DDPM_CONFIG))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 11, 15, 25])
@pytest.mark.parametrize("name", NAMES)
def test_step_counts(name: str, count: int) -> None:
    if (name, count) == ("dpm_2_ancestral", 2):
        pytest.skip("diffusers takes the root of a difference that float32 makes negative: NaN")
    config = config_of(name)
    assert_same(ours(name, config, count), theirs(name, config, count))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"lms"}))  # see lms: diffusers weights slopes it lacks
@pytest.mark.parametrize("strength", [1.0, 0.6, 0.25])
def test_starts_from_an_image(name: str, strength: float) -> None:
    config = {**config_of(name), "timestep_spacing": "leading", "steps_offset": 1}
    if DDPM_CONFIG.keys() - config.keys():
        config = config_of(name)
    expected = theirs(name, config, 9, image=strength)
    assert_same(ours(name, config, 9, image=strength), expected)


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_singlestep", "unipc"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 5, 18])
def test_solvers_of_a_flow(name: str, order: int, count: int) -> None:
    config = {**FLOW, "solver_order": order}
    assert_same(ours(name, config, count), theirs(name, config, count), tolerance=2e-5)


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_singlestep"])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "dpmsolver", "sde-dpmsolver++"])
@pytest.mark.parametrize("kind", ["midpoint", "heun"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_every_solver_of_dpm(name: str, algorithm: str, kind: str, order: int) -> None:
    config = {"algorithm_type": algorithm, "solver_type": kind, "solver_order": order}
    config = {**DDPM_CONFIG, **config, "final_sigmas_type": "sigma_min", "prediction_type": "v_prediction"}
    for count in (7, 16):
        assert_same(ours(name, config, count), theirs(name, config, count))


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc", "deis", "euler", "heun", "lms", "dpm_2", "dpmpp_sde"])
@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 40),
    kind=st.sampled_from(["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", None]),
    spacing=st.sampled_from(["leading", "linspace", "trailing"]),
    prediction=st.sampled_from(["epsilon", "v_prediction"]),
    beta_schedule=st.sampled_from(["scaled_linear", "linear"]),
)
def test_spacings(
    name: str, count: int, kind: str | None, spacing: str, prediction: str, beta_schedule: str
) -> None:
    config = {**DDPM_CONFIG, "timestep_spacing": spacing, "prediction_type": prediction}
    config |= {"beta_schedule": beta_schedule, **({} if kind is None else {kind: True})}
    # Past 20 steps, diffusers' float32 shows in the history of the solvers of the noise.
    assert_same(ours(name, config, count), theirs(name, config, count), tolerance=3e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["ddim", "tcd"])
def test_eta(name: str, eta: float) -> None:
    config = config_of(name)
    assert_same(ours(name, config, 8, eta=eta), theirs(name, config, 8, eta=eta))


@pytest.mark.parametrize("name", [name for name in NAMES if SCHEDULERS[name].takes_timesteps])
@pytest.mark.parametrize("table", ALIGN_YOUR_STEPS)
def test_given_timesteps(name: str, table: str) -> None:
    timesteps = list(ALIGN_YOUR_STEPS[table])
    got = ours(name, config_of(name), len(timesteps), timesteps=timesteps)
    assert_same(got, theirs(name, config_of(name), len(timesteps), timesteps=timesteps))


def test_align_your_steps_has_the_tables_of_diffusers() -> None:
    pytest.importorskip("diffusers")
    from diffusers.schedulers import AysSchedules

    assert list(ALIGN_YOUR_STEPS["sd"]) == AysSchedules["StableDiffusionTimesteps"]
    assert list(ALIGN_YOUR_STEPS["sdxl"]) == AysSchedules["StableDiffusionXLTimesteps"]


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("beside", [{}, {"shift_terminal": 0.1}, {"use_karras_sigmas": True}])
def test_dynamic_shifting(kind: str, beside: dict[str, object]) -> None:
    config = {"use_dynamic_shifting": True, "time_shift_type": kind, **beside}
    for name, extra in (("flow_match_euler", {}), ("unipc", FLOW)):
        if not (name == "unipc" and "use_karras_sigmas" in beside):
            both = {**config, **extra}
            assert_same(ours(name, both, 7, mu=0.8), theirs(name, both, 7, mu=0.8))


@pytest.mark.parametrize("tokens", [256, 1024, 4096, 6000])
def test_mu_is_that_of_diffusers_pipelines(tokens: int) -> None:
    pytest.importorskip("diffusers")
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    schedule = NoiseSchedule.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler"})
    assert isinstance(schedule, FlowSchedule)
    assert flow_mu(schedule, tokens) == pytest.approx(calculate_shift(tokens))


def test_quantiles_of_the_beta_distribution() -> None:
    stats = pytest.importorskip("scipy.stats")
    probabilities = spacing.np.linspace(0, 1, 101)
    expected = stats.beta.ppf(probabilities, 0.6, 0.6)
    spacing.np.testing.assert_allclose(spacing.beta_quantiles(probabilities), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("euler", {"eta": 0.5}, "no eta for scheduler 'euler'"),
        ("ddim", {"eta": 1.5}, "eta from 0 to 1"),
        ("ddim", {"eta": float("nan")}, "eta from 0 to 1"),
        ("lms", {"timesteps": [3, 2, 1]}, "no timesteps for scheduler 'lms'"),
        ("euler", {"timesteps": [3, 2]}, "3 timesteps"),
        ("euler", {"timesteps": [3, 3, 1]}, "falling"),
        ("euler", {"timesteps": [1000, 3, 1]}, "999 to 0"),
        ("euler", {"mu": 1.0}, "no mu for scheduler 'euler'"),
        ("dpmpp_2m", {"mu": 1.0}, "no mu without"),
    ],
)
def test_arguments_that_a_scheduler_does_not_take(name: str, arguments: dict, said: str) -> None:
    if name == "dpmpp_2m":
        assert_same(ours(name, FLOW, 3), ours(name, FLOW, 3))
        with pytest.raises(ScheduleError, match="use_dynamic_shifting true"):
            ours(name, FLOW, 3, **arguments)
    else:
        with pytest.raises(ScheduleError, match=said):
            ours(name, config_of(name), 3, **arguments)


@pytest.mark.parametrize("key", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "dpmpp_singlestep"])
def test_timesteps_are_given_or_respaced(name: str, key: str) -> None:
    with pytest.raises(ScheduleError, match="leave one out"):
        ours(name, {**DDPM_CONFIG, key: True}, 3, timesteps=[900, 500, 100])
