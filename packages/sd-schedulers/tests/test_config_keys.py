"""Every key of every diffusers class's constructor is declared, and each declaration held to diffusers.

An honoured key changes the result, and to the same as in diffusers; a key without effect changes nothing
there either; a value that is not among a limited key's is refused by name.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from diffusers_oracle import DDPM_CONFIG, assert_same, class_of, ours, theirs
from sd_schedulers import SCHEDULERS, ConfigKeys, ScheduleError

NAMES = [name for name, scheduler in SCHEDULERS.items() if scheduler.diffusers is not None]
COUNT = 6

V = {"prediction_type": "v_prediction"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
KARRAS = {"use_karras_sigmas": True}
CLIP = {"clip_sample": True}
THRESHOLD = {"thresholding": True, "sample_max_value": 2.0, "dynamic_thresholding_ratio": 0.8}

#: For each key, values that differ from what they are compared to, and what else the config needs beside.
ALTERNATIVES: dict[str, list[tuple[object, dict[str, object]]]] = {
    "num_train_timesteps": [(500, {})],
    "beta_start": [(0.002, {})],
    "beta_end": [(0.03, {})],
    "beta_schedule": [("linear", {}), ("squaredcos_cap_v2", {"timestep_spacing": "leading"})],
    "trained_betas": [(np.linspace(0.002, 0.01, 1000).tolist(), {})],
    "prediction_type": [("v_prediction", {})],
    "timestep_spacing": [("leading", {}), ("linspace", {}), ("trailing", {})],
    "steps_offset": [(1, {"timestep_spacing": "leading"})],
    "rescale_betas_zero_snr": [(True, {**V, "timestep_spacing": "trailing"})],
    "set_alpha_to_one": [(True, {}), (False, {})],
    "skip_prk_steps": [(False, {}), (True, {})],
    "clip_sample": [(True, {}), (False, {})],
    "clip_sample_range": [(0.5, CLIP)],
    "thresholding": [(True, {})],
    "dynamic_thresholding_ratio": [(0.6, THRESHOLD)],
    "sample_max_value": [(1.1, THRESHOLD), (0.2, THRESHOLD)],
    "variance_type": [("fixed_large", {}), ("fixed_small_log", {}), ("learned_range", {})],
    "use_karras_sigmas": [(True, {})],
    "use_exponential_sigmas": [(True, {})],
    "use_beta_sigmas": [(True, {})],
    "sigma_min": [(0.1, {"use_exponential_sigmas": True})],
    "sigma_max": [(9.0, {"use_exponential_sigmas": True})],
    "final_sigmas_type": [("sigma_min", {})],
    "interpolation_type": [("log_linear", {}), ("log_linear", KARRAS)],
    "timestep_type": [("continuous", V)],
    "solver_order": [(1, {}), (3, {})],
    "algorithm_type": [
        ("sde-dpmsolver++", {}),
        ("dpmsolver", {"final_sigmas_type": "sigma_min"}),
        ("sde-dpmsolver", {"final_sigmas_type": "sigma_min"}),
    ],
    "solver_type": [("heun", {}), ("heun", {"solver_order": 3}), ("bh1", {"final_sigmas_type": "sigma_min"})],
    "lower_order_final": [
        (False, {"final_sigmas_type": "sigma_min"}),
        (True, {"final_sigmas_type": "sigma_min"}),
        (False, {"final_sigmas_type": "sigma_min", "solver_order": 3}),
    ],
    "euler_at_final": [(True, {"final_sigmas_type": "sigma_min", "lower_order_final": False})],
    "use_lu_lambdas": [(True, {})],
    "lambda_min_clipped": [(-1.0, {})],
    "predict_x0": [(False, {"final_sigmas_type": "sigma_min"})],
    "disable_corrector": [([0, 2], {})],
    "use_flow_sigmas": [(True, {"prediction_type": "flow_prediction"})],
    "flow_shift": [(3.0, FLOW)],
    "use_dynamic_shifting": [(True, FLOW)],
    "time_shift_type": [("linear", {**FLOW, "use_dynamic_shifting": True})],
    "original_inference_steps": [(25, {})],
    "timestep_scaling": [(0.01, {})],
    "noise_sampler_seed": [(3, {})],
    "solver_p": [({}, {})],
    "shift": [(3.0, {})],
    "shift_terminal": [(0.1, FLOW)],
    "invert_sigmas": [(True, {})],
    "stochastic_sampling": [(True, {})],
    "sigma_data": [(0.7, {})],
    "sigma_schedule": [("exponential", {})],
    "rho": [(5.0, {})],
    "base_shift": [(0.4, {})],
    "max_shift": [(1.3, {})],
    "base_image_seq_len": [(200, {})],
    "max_image_seq_len": [(5000, {})],
}
#: Keys that say nothing in our words but to a scheduler that has its own form of noise.
OWN_BESIDE = {"edm_euler": {}, "edm_dpmpp_2m": {}, "flow_match_euler": {}}
MU = 0.9


#: Where a value is another's business: diffusers refuses it, or it is no value of this class.
NOT_OF_THIS_CLASS = {
    ("dpmpp_2m", "solver_type", "bh1"),
    ("dpmpp_singlestep", "solver_type", "bh1"),
    ("edm_dpmpp_2m", "solver_type", "bh1"),
    ("unipc", "solver_type", "heun"),
    ("dpmpp_2m", "time_shift_type", "linear"),
    ("dpmpp_singlestep", "time_shift_type", "linear"),
    ("deis", "time_shift_type", "linear"),
    ("dpmpp_singlestep", "algorithm_type", "sde-dpmsolver"),
    ("edm_dpmpp_2m", "algorithm_type", "dpmsolver"),
    ("edm_dpmpp_2m", "algorithm_type", "sde-dpmsolver"),
}


def base(name: str) -> dict[str, object]:
    return dict(OWN_BESIDE.get(name, DDPM_CONFIG))


def config_of(name: str, key: str, beside: dict[str, object]) -> dict[str, object]:
    """What goes with ``key``, of what the scheduler knows."""
    names = SCHEDULERS[name].keys.names
    config = {**base(name), **{other: value for other, value in beside.items() if other in names}}
    if name == "pndm" and key != "skip_prk_steps":
        config["skip_prk_steps"] = True
    if name in ("ddim", "ddpm") and key not in ("clip_sample", "clip_sample_range"):
        config["clip_sample"] = False
    if name == "flow_match_euler":
        config = {other: value for other, value in config.items() if other not in FLOW}
        if key in ("sigma_min", "sigma_max"):  # of a flow, which ends at 1
            return {**config, "use_exponential_sigmas": True}
    if name in ("edm_euler", "edm_dpmpp_2m") and key in ("sigma_min", "sigma_max"):
        return {}
    return config


def cases(kind: str) -> list[Any]:
    return list(_cases(kind))


def _cases(kind: str) -> Iterator[Any]:
    for name in NAMES:
        keys: ConfigKeys = SCHEDULERS[name].keys
        for key in sorted(getattr(keys, kind)):
            for number, (value, beside) in enumerate(ALTERNATIVES[key]):
                if isinstance(value, str) and (name, key, value) in NOT_OF_THIS_CLASS:
                    continue
                yield pytest.param(name, key, value, beside, id=f"{name}-{key}-{number}")


def run(function: Any, name: str, config: dict[str, object]) -> Any:
    arguments = {"mu": MU} if config.get("use_dynamic_shifting") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(name, config, COUNT, **arguments)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_the_constructor_is_declared(name: str) -> None:
    constructor = inspect.signature(class_of(name).__init__).parameters
    assert set(constructor) - {"self"} - SCHEDULERS[name].keys.names == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_diffusers_lacks_is_declared_for_a_reason(name: str) -> None:
    constructor = inspect.signature(class_of(name).__init__).parameters
    # read through ``config`` of classes whose constructors forgot them; and facts of the network
    known = {"sigma_min", "sigma_max", "prediction_type"}
    extra = SCHEDULERS[name].keys.names - set(constructor) - known
    assert extra <= set(SCHEDULERS[name].keys.limited)


@pytest.mark.parametrize(("name", "key", "value", "beside"), cases("honoured"))
def test_an_honoured_key_does_what_it_does_in_diffusers(
    name: str, key: str, value: object, beside: dict[str, object]
) -> None:
    config = {**config_of(name, key, beside), key: value}
    # DEIS integrates the noise, and float32 cancels in that where next to no signal is left.
    flows = name == "deis" and config.get("use_flow_sigmas") is True
    assert_same(run(ours, name, config), run(theirs, name, config), tolerance=1e-4 if flows else 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_an_honoured_key_changes_the_result(name: str) -> None:
    keys = SCHEDULERS[name].keys.honoured
    for key in sorted(keys - {"time_shift_type"}):
        results = []
        for value, beside in [*ALTERNATIVES[key], (None, ALTERNATIVES[key][0][1])]:
            if not (isinstance(value, str) and (name, key, value) in NOT_OF_THIS_CLASS):
                config = {**config_of(name, key, beside), key: value}
                if key == "use_flow_sigmas" and value is None:
                    config["prediction_type"] = "epsilon"
                results.append(run(ours, name, config)[1][-1].tolist())
        assert any(result != results[-1] for result in results), key


@pytest.mark.parametrize(("name", "key", "value", "beside"), cases("without_effect"))
def test_a_key_without_effect_has_none_in_diffusers_either(
    name: str, key: str, value: object, beside: dict[str, object]
) -> None:
    config = config_of(name, key, beside)
    changed = {**config, key: value}
    assert_same(run(theirs, name, changed), run(theirs, name, config), tolerance=1e-6)
    assert_same(run(ours, name, changed), run(ours, name, config), tolerance=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_beyond_a_limited_key_is_refused_by_name(name: str) -> None:
    limited = SCHEDULERS[name].keys.limited
    for key, allowed in limited.items():
        for value in (True, "another", 4.5, ["x"]):
            if value not in allowed:
                with pytest.raises(ScheduleError, match=key):
                    run(ours, name, {**base(name), key: value})


def test_a_key_is_declared_once() -> None:
    with pytest.raises(ScheduleError, match="twice: shift"):
        ConfigKeys(honoured=frozenset({"shift"}), limited={"shift": (1.0,)})


@pytest.mark.parametrize("key", ["_class_name", "_diffusers_version", "_use_default_values"])
@pytest.mark.parametrize("name", NAMES)
def test_notes_are_no_keys(name: str, key: str) -> None:
    note = {} if key == "_class_name" else {key: ["anything"]}
    assert run(ours, name, {**base(name), **note})
