"""Recipes and settings of samplers: the picture is that of diffusers, set up as the model cards have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sd_runtime import RECIPES, Pipeline

PROMPT, NEGATIVE = "a cat, on a mat", "blurry"
TRAILING = {"timestep_spacing": "trailing"}
OFF = {"guidance_scale": 0.0}

#: diffusers' scheduler, what is changed in its config, and the arguments of the call.
CARDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lcm-lora": ("LCM", {}, {"num_inference_steps": 4, "guidance_scale": 1.0}),
    "tcd": ("TCD", {}, {"num_inference_steps": 4, **OFF, "eta": 0.3}),
    "hyper-sd-1": ("TCD", {}, {"num_inference_steps": 1, **OFF, "eta": 1.0}),
    "hyper-sd-2": ("DDIM", TRAILING, {"num_inference_steps": 2, **OFF}),
    "hyper-sd-4": ("DDIM", TRAILING, {"num_inference_steps": 4, **OFF}),
    "hyper-sd-8": ("DDIM", TRAILING, {"num_inference_steps": 8, **OFF}),
    "lightning-2": ("EulerDiscrete", TRAILING, {"num_inference_steps": 2, **OFF}),
    "lightning-4": ("EulerDiscrete", TRAILING, {"num_inference_steps": 4, **OFF}),
    "lightning-8": ("EulerDiscrete", TRAILING, {"num_inference_steps": 8, **OFF}),
    "sd-turbo": ("EulerDiscrete", TRAILING, {"num_inference_steps": 1, **OFF}),
    "sdxl-turbo": ("EulerAncestralDiscrete", TRAILING, {"num_inference_steps": 1, **OFF}),
    "dmd2-1": ("LCM", {}, {"timesteps": [399], **OFF}),
    "dmd2-4": ("LCM", {}, {"timesteps": [999, 749, 499, 249], **OFF}),
}
#: The scheduler config of the checkpoint, whose class is DDIM's.
PUBLISHED = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "timestep_spacing": "leading",
}
GUIDED = {"guidance_scale": 5.0, "negative_prompt": NEGATIVE}
LEVELS = [14.0, 6.5, 2.7, 1.4, 0.4, 0.0]


@pytest.fixture(scope="module")
def made(shared_families: Any) -> tuple[Any, Pipeline]:
    """diffusers' pipeline, and ours of the same checkpoint."""
    theirs = shared_families.sd()
    return theirs, Pipeline.open(shared_families.bundle(theirs))


def psnr(found: Any, expected: Any) -> float:
    error = np.mean((np.asarray(found, float) - np.asarray(expected, float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def drawn(pipeline: Pipeline, **options: Any) -> Any:
    (picture,) = pipeline.generate(PROMPT, seed=11, rng="torch", **options)
    return picture.image


def set_up(theirs: Any, scheduler: str, config: dict[str, Any]) -> None:
    import diffusers

    theirs.scheduler = getattr(diffusers, f"{scheduler}Scheduler").from_config({**PUBLISHED, **config})


def test_every_recipe_is_held_to_its_card() -> None:
    assert {*CARDS, "lcm"} == set(RECIPES)  # that one is held in test_latent_consistency, by the bundle alone


@pytest.mark.parametrize("name", CARDS)
def test_a_recipe_draws_as_its_card(made: Any, by_diffusers: Any, name: str) -> None:
    theirs, pipeline = made
    scheduler, config, call = CARDS[name]
    set_up(theirs, scheduler, config)
    expected = by_diffusers(theirs, PROMPT, **call)
    assert np.std(expected) > 2
    assert psnr(drawn(pipeline, recipe=name), expected) >= 35


@pytest.mark.parametrize(
    ("options", "scheduler", "config", "call"),
    [
        ({"scheduler": "ddim", "eta": 0.7}, "DDIM", {}, {"eta": 0.7, "num_inference_steps": 5}),
        ({"scheduler": "euler", "spacing": "karras"}, "EulerDiscrete", {"use_karras_sigmas": True}, {}),
        ({"scheduler": "heun", "spacing": "beta"}, "HeunDiscrete", {"use_beta_sigmas": True}, {}),
        (
            {"scheduler": "dpmpp_2m", "spacing": "exponential"},
            "DPMSolverMultistep",
            {"use_exponential_sigmas": True},
            {},
        ),
        ({"scheduler": "euler_ancestral", "spacing": "trailing"}, "EulerAncestralDiscrete", TRAILING, {}),
        (
            {"scheduler": "dpmpp_2m", "timesteps": [950, 700, 400, 120]},
            "DPMSolverMultistep",
            {},
            {"timesteps": [950, 700, 400, 120]},
        ),
        ({"scheduler": "euler", "sigmas": LEVELS}, "EulerDiscrete", {}, {"sigmas": LEVELS}),
    ],
)
def test_settings_of_samplers(
    made: Any, by_diffusers: Any, options: Any, scheduler: str, config: Any, call: Any
) -> None:
    theirs, pipeline = made
    set_up(theirs, scheduler, config)
    counted = {} if "timesteps" in call or "sigmas" in call else {"num_inference_steps": 5}
    expected = by_diffusers(theirs, PROMPT, **GUIDED, **{**counted, **call})
    assert np.std(expected) > 2
    assert psnr(drawn(pipeline, **GUIDED, **options, **counted), expected) >= 35


def test_align_your_steps(made: Any, by_diffusers: Any) -> None:
    from diffusers.schedulers import AysSchedules

    theirs, pipeline = made
    set_up(theirs, "DPMSolverMultistep", {})
    expected = by_diffusers(theirs, PROMPT, **GUIDED, timesteps=AysSchedules["StableDiffusionTimesteps"])
    found = drawn(pipeline, scheduler="dpmpp_2m", spacing="Align Your Steps", **GUIDED)
    assert psnr(found, expected) >= 35
