"""Every sampler step by step against diffusers' scheduler of that name: recorded steps, and live ones.

The model is a deterministic nonlinear toy, so a wrong timestep, scale or history shows in the numbers. Run
this file as a script to record the fixture anew (needs diffusers).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from sd_schedulers import FromImage, NoiseSchedule, Resumed, ScheduleError, sample

FIXTURE = Path(__file__).parent / "fixtures" / "diffusers_steps.json"
CLASSES = {
    "pndm": "PNDMScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "lcm": "LCMScheduler",
}
#: The scheduler config of SD 1.5.
SD15 = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
VARIANTS = {
    "as it is": {},
    "prk": {"skip_prk_steps": False},
    "to one": {"set_alpha_to_one": True},
    "no offset": {"steps_offset": 0},
    "clipped": {"clip_sample": True, "clip_sample_range": 0.7},
    "clipped by default": {"clip_sample": None},
    "linear": {"beta_schedule": "linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": np.linspace(0.002, 0.01, 1000).tolist()},
    "zero snr": {"rescale_betas_zero_snr": True},
    "karras": {"use_karras_sigmas": True},
    "karras bounds": {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0},
    "sigma min": {"final_sigmas_type": "sigma_min"},
    "second order to the end": {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    "euler at final": {"final_sigmas_type": "sigma_min", "euler_at_final": True},
    "unipc": {"solver_type": "bh2", "predict_x0": True, "solver_p": None},
    "distilled": {"original_inference_steps": 25, "timestep_scaling": 3.0},
}
#: Neither what we refuse by design, nor where diffusers' own float32 has lost the digits to compare.
SKIPPED = {
    ("pndm", "zero snr"): "diffusers ignores the setting; we refuse it",
    ("pndm", "cosine"): "eq. 9 subtracts terms of 20,000 in float32",
    ("ddim", "zero snr", "epsilon"): "diffusers divides by zero; we refuse it",
    ("lcm", "zero snr", "epsilon"): "diffusers divides by zero; we refuse it",
}


#: diffusers takes the whole latent less nearly all of it: what float32 keeps of that from sigmas of 1e4.
CANCELLED = {("euler_ancestral", "zero snr"): 2e-4, ("euler_ancestral", "cosine"): 2e-3}


def toy(latent: np.ndarray, timestep: float) -> np.ndarray:
    """Nonlinear, not pointwise, and different at every timestep."""
    mixed = np.float32(0.7) * latent + np.float32(0.1) * np.roll(latent, 1, -1)
    return np.float32(0.8) * np.tanh(mixed) + np.float32(0.2 * np.sin(timestep / 150))


def unit_noise() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((1, 1, 1, 3)).astype(np.float32)


def step_noise() -> Iterator[np.ndarray]:
    random = np.random.default_rng(8)
    while True:
        yield random.standard_normal((1, 1, 1, 3)).astype(np.float32)


IMAGE = np.float32([[[[0.4, -1.3, 0.2]]]])


def ours(
    name: str, config: dict, count: int, *, start: object = None, end: float = 1.0
) -> tuple[list[float], list[np.ndarray]]:
    schedule = NoiseSchedule.from_config(config)
    begun = unit_noise() if start is None else start
    steps = list(
        sample(name, toy, begun, schedule, num_inference_steps=count, end=end, step_noise=step_noise())
    )
    assert [(step.index, step.total) for step in steps] == [(i, len(steps)) for i in range(len(steps))]
    return [step.timestep for step in steps], [step.latent for step in steps]


def theirs(
    name: str, config: dict, count: int, *, start: object = None, end: float = 1.0
) -> tuple[list[float], list[np.ndarray]]:
    """The loop of diffusers' pipelines around its scheduler."""
    import diffusers
    import torch

    scheduler = getattr(diffusers, CLASSES[name]).from_config(
        {k: v for k, v in config.items() if v is not None}
    )
    latent, timesteps = begin(scheduler, count, start)
    limit = round(1000 - end * 1000)
    timesteps = timesteps[: sum(float(timestep) >= limit for timestep in timesteps)]
    latents, noise = [], step_noise()

    def randn_tensor(*_: object, **__: object) -> torch.Tensor:
        return torch.from_numpy(next(noise))

    with mock.patch(f"{type(scheduler).__module__}.randn_tensor", randn_tensor, create=True):
        for timestep in timesteps:
            output = toy(scheduler.scale_model_input(latent, timestep).numpy(), float(timestep))
            latent = scheduler.step(torch.from_numpy(output), timestep, latent).prev_sample
            latents.append(latent.numpy().copy())
    return [float(timestep) for timestep in timesteps], latents


def begin(scheduler: Any, count: int, start: object) -> tuple[Any, Any]:
    """The first latent and the timesteps, as the pipelines of diffusers' img2img and refiner have them."""
    import torch

    lcm = type(scheduler).__name__ == "LCMScheduler"
    if lcm and isinstance(start, FromImage):
        scheduler.set_timesteps(count, strength=start.strength)
    else:
        scheduler.set_timesteps(count)
    skipped = 0
    if isinstance(start, FromImage) and not lcm:
        skipped = count - min(int(count * start.strength), count)
    if isinstance(start, Resumed):
        limit = round(1000 - start.progress * 1000)
        skipped = len(scheduler.timesteps) - int((scheduler.timesteps < limit).sum())
    timesteps = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    if isinstance(start, FromImage):
        image, noise = torch.from_numpy(start.image), torch.from_numpy(start.noise)
        return scheduler.add_noise(image, noise, timesteps[:1]), timesteps
    if isinstance(start, Resumed):
        return torch.from_numpy(start.state), timesteps
    return torch.from_numpy(unit_noise()) * scheduler.init_noise_sigma, timesteps


def assert_same_steps(got: tuple, expected: tuple, *, tolerance: float = 1e-5) -> None:
    assert got[0] == pytest.approx(expected[0], abs=1e-4)
    for latent, reference in zip(got[1], expected[1], strict=True):
        assert latent.dtype == np.float32
        assert np.abs(latent - reference).max() <= tolerance * np.abs(reference).max()


def cases(counts: tuple[int, ...], spacings: tuple[str | None, ...]) -> Iterator[tuple[str, str, dict, int]]:
    for name in CLASSES:
        for label, variant in VARIANTS.items():
            for prediction in ("epsilon", "v_prediction", "sample"):
                refused = name in ("pndm", "euler_ancestral") and prediction == "sample"
                if refused or (name, label) in SKIPPED or (name, label, prediction) in SKIPPED:
                    continue
                for spacing in spacings:
                    config = {**SD15, **variant, "prediction_type": prediction, "timestep_spacing": spacing}
                    for count in counts:
                        if label != "prk" or name != "pndm" or count >= 4:
                            yield f"{name}, {label}, {prediction}, {spacing}, {count}", name, config, count


def recorded() -> list[dict]:
    return json.loads(FIXTURE.read_text())


@pytest.mark.parametrize("case", recorded(), ids=lambda case: case["label"])
def test_steps_are_those_recorded_from_diffusers(case: dict) -> None:
    expected = [np.float32(latent).reshape(unit_noise().shape) for latent in case["latents"]]
    tolerance = CANCELLED.get((case["sampler"], case["label"].split(", ")[1]), 1e-5)
    got = ours(case["sampler"], case["config"], case["count"])
    assert_same_steps(got, (case["timesteps"], expected), tolerance=tolerance)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing", None])
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.filterwarnings("ignore")
def test_steps_are_those_of_the_diffusers_installed_here(name: str, spacing: str | None) -> None:
    pytest.importorskip("diffusers").logging.set_verbosity_error()
    compared = 0
    for label, sampler, config, count in cases((2, 5, 20), (spacing,)):
        if sampler == name:
            try:
                tolerance = CANCELLED.get((name, label.split(", ")[1]), 1e-5)
                got = ours(name, config, count)
                assert_same_steps(got, theirs(name, config, count), tolerance=tolerance)
            except AssertionError as error:
                raise AssertionError(f"{label}: {error}") from error
            compared += 1
    assert compared > 80
    assert_same_steps(ours(name, SD15, 50), theirs(name, SD15, 50))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("count", [1, 3, 7, 61, 333])
@pytest.mark.filterwarnings("ignore")
def test_odd_step_counts(name: str, count: int) -> None:
    pytest.importorskip("diffusers").logging.set_verbosity_error()
    for spacing in ("leading", "linspace") if count == 61 else ("leading", "linspace", "trailing"):
        config = {**SD15, "timestep_spacing": spacing, "original_inference_steps": 500}
        assert_same_steps(ours(name, config, count), theirs(name, config, count), tolerance=3e-5)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("leading", [853, 711, 569, 427, 285, 143, 1]),
        ("linspace", [999, 832, 666, 500, 333, 166, 0]),
        ("trailing", [999, 856, 713, 570, 428, 285, 142]),
    ],
)
def test_seven_timesteps(spacing: str, expected: list[int]) -> None:
    assert ours("ddim", {**SD15, "timestep_spacing": spacing}, 7)[0] == expected


def test_trailing_never_reaches_past_the_first_timestep() -> None:
    # diffusers gives 62 timesteps for 61, the last one -1: 1000 / 61 rounds down, arange goes one further.
    timesteps, _ = ours("ddim", {**SD15, "timestep_spacing": "trailing"}, 61)
    assert len(timesteps) == 61
    assert min(timesteps) >= 0


def test_pndm_refuses_what_diffusers_ignores() -> None:
    with pytest.raises(ScheduleError, match="rescale_betas_zero_snr"):
        ours("pndm", {**SD15, "rescale_betas_zero_snr": True}, 5)


STARTS = [
    *(FromImage(IMAGE, unit_noise(), strength) for strength in (1.0, 0.8, 0.5, 0.3)),
    *(Resumed(unit_noise(), progress) for progress in (0.2, 0.5, 0.8)),
]


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.filterwarnings("ignore")
def test_starts_in_the_middle_are_those_of_diffusers(name: str, spacing: str) -> None:
    pytest.importorskip("diffusers").logging.set_verbosity_error()
    config = {**SD15, "timestep_spacing": spacing}
    for start in STARTS:
        for count in (10, 15):
            expected = theirs(name, config, count, start=start)
            assert_same_steps(ours(name, config, count, start=start), expected)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.filterwarnings("ignore")
def test_stops_in_the_middle_are_those_of_diffusers(name: str) -> None:
    pytest.importorskip("diffusers").logging.set_verbosity_error()
    for end in (0.2, 0.5, 0.83):
        for start in (None, FromImage(IMAGE, unit_noise(), 0.9)):
            expected = theirs(name, SD15, 20, start=start, end=end)
            assert_same_steps(ours(name, SD15, 20, start=start, end=end), expected)


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_two_parts_make_the_whole(name: str) -> None:
    """Without history, stopping and resuming changes nothing."""
    whole = ours(name, SD15, 20)
    first = ours(name, SD15, 20, end=0.6)
    second = ours(name, SD15, 20, start=Resumed(first[1][-1], 0.6))
    assert first[0] + second[0] == whole[0]
    np.testing.assert_array_equal(second[1][-1], whole[1][-1])


def record() -> None:
    """Write the fixture: one spacing by turns for each case in 5 steps, and SD 1.5's own config in 20."""
    spacings = ("leading", "linspace", "trailing", None)
    chosen = [(f"{name}, SD 1.5, 20 steps", name, SD15, 20) for name in CLASSES]
    for number, (label, name, config, count) in enumerate(cases((5,), (None,))):
        if config["trained_betas"] is None:
            spacing = spacings[number % 4]
            title = f"{label.removesuffix(', None, 5')}, {spacing}"
            chosen.append((title, name, {**config, "timestep_spacing": spacing}, count))
    lines = ",\n".join(json.dumps(entry(*case), sort_keys=True) for case in chosen)
    FIXTURE.write_text(f"[\n{lines}\n]\n")


def entry(label: str, name: str, config: dict, count: int) -> dict:
    timesteps, latents = theirs(name, config, count)
    return {
        "label": label,
        "sampler": name,
        "config": config,
        "count": count,
        "timesteps": timesteps,
        "latents": [[float(f"{value:.8g}") for value in latent.ravel()] for latent in latents],
    }


if __name__ == "__main__":
    record()
