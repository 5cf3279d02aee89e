"""The pipeline on toy networks, against the same picture computed here by other code."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sd_mil.engines import CoreML, OpenVINO
from sd_runtime import (
    EngineError,
    MissingComponentError,
    NumericsError,
    Pipeline,
    PromptTruncatedWarning,
    SettingsError,
    draw_noise,
    resolve_engine,
)

Build = Callable[..., Pipeline]


def ddim_by_hand(networks: Any, prompts: list[str], *, seed: int, steps: int, scale: float) -> Any:
    """DDIM (arXiv 2010.02502, eq. 12, eta 0) on the toy networks, in float64 and without a batch."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    start, end = 2 * len(letters), 2 * len(letters) + 1

    def states(prompt: str) -> Any:
        ids = [letters.index(letter) + len(letters) for letter in prompt.split()]
        padded = ([start, *ids] + [end] * 77)[:77]
        return networks.text_encoder(np.array([padded])).astype(np.float64).transpose(0, 2, 1)[:, :, None]

    alphas = np.cumprod(1 - np.linspace(0.0001**0.5, 0.02**0.5, 1000) ** 2)
    latent = np.random.RandomState(seed).randn(1, 4, 8, 8)
    stride = 1000 // steps
    for timestep in range((steps - 1) * stride, -1, -stride):
        negative, positive = (
            networks.unet(latent, np.array([timestep]), states(prompt)).astype(np.float64)
            for prompt in prompts
        )
        noise = scale * positive + (1 - scale) * negative
        here, there = alphas[timestep], alphas[timestep - stride] if timestep >= stride else 1.0
        clean = (latent - (1 - here) ** 0.5 * noise) / here**0.5
        latent = there**0.5 * clean + (1 - there) ** 0.5 * noise
    picture = networks.vae_decoder(latent / 0.5 + 0.25)[0]
    return np.clip(np.rint((picture + 1) * 127.5), 0, 255).transpose(1, 2, 0)


def psnr(found: Any, expected: Any) -> float:
    error = np.mean((np.asarray(found, float) - np.asarray(expected, float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


SCHEDULE: dict[str, object] = {
    "beta_start": 0.0001, "beta_end": 0.02, "clip_sample": False, "set_alpha_to_one": True,
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_same_picture_as_by_hand(toy_pipeline: Build, toy_networks: Any, batch: int, steps: int) -> None:
    pipeline = toy_pipeline(batch=batch, scheduler=SCHEDULE)
    (drawn,) = pipeline.generate(
        "a b", negative_prompt="c", seed=7, num_inference_steps=steps, guidance_scale=3.0
    )
    expected = ddim_by_hand(toy_networks, ["c", "a b"], seed=7, steps=steps, scale=3.0)
    assert np.std(expected) > 5
    assert psnr(drawn.image, expected) > 45  # the ports are float16


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 0.0, -1.0])
def test_no_guidance_up_to_one(toy_pipeline: Build, toy_networks: Any, batch: int, scale: float) -> None:
    pipeline = toy_pipeline(batch=batch, scheduler=SCHEDULE)
    (drawn,) = pipeline.generate("a b", negative_prompt="c", guidance_scale=scale, num_inference_steps=5)
    expected = ddim_by_hand(toy_networks, ["a b", "a b"], seed=93, steps=5, scale=1.0)
    assert psnr(drawn.image, expected) > 45
    assert len(toy_networks.calls["text_encoder"]) == 1
    assert len(toy_networks.calls["unet"]) == 5


def test_the_batch_is_negative_then_positive(toy_pipeline: Build, toy_networks: Any) -> None:
    next(toy_pipeline().steps("a", negative_prompt="b"))
    (call,) = toy_networks.calls["unet"]
    encode = {
        letter: toy_networks.text_encoder(np.array([[52, 26 + "ab".index(letter), *[53] * 75]]))[0].T
        for letter in "ab"
    }
    expected = np.stack([encode["b"], encode["a"]])[:, :, None].astype(np.float16)
    np.testing.assert_array_equal(call["encoder_hidden_states"], expected)


def test_pictures_of_one_call_can_be_drawn_alone(toy_pipeline: Build) -> None:
    pipeline = toy_pipeline()
    together = pipeline.generate("a", seed=5, num_inference_steps=2, image_count=3)
    assert [image.settings.seed for image in together] == [5, 6, 7]
    for image in together:
        (alone,) = pipeline.generate("a", seed=image.settings.seed, num_inference_steps=2)
        assert alone == image
    assert together[0].image != together[1].image


def test_steps_are_the_callers_loop(toy_pipeline: Build, toy_networks: Any) -> None:
    pipeline = toy_pipeline()
    steps = pipeline.steps("a", num_inference_steps=6)
    seen = [next(steps), next(steps)]
    assert [(step.index, step.total) for step in seen] == [(0, 6), (1, 6)]
    assert len(toy_networks.calls["unet"]) == 2
    assert pipeline.decode(seen[-1].denoised).size == (64, 64)


def test_the_last_step_is_the_picture(toy_pipeline: Build) -> None:
    pipeline = toy_pipeline()
    *_, last = pipeline.steps("a", num_inference_steps=3)
    (drawn,) = pipeline.generate("a", num_inference_steps=3)
    assert pipeline.decode(last.latent) == drawn.image


def test_noise_of_either_generator(toy_pipeline: Build) -> None:
    pipeline = toy_pipeline()
    by_rng = {rng: next(pipeline.steps("a", rng=rng, num_inference_steps=1)) for rng in ("numpy", "torch")}
    assert not np.allclose(by_rng["numpy"].latent, by_rng["torch"].latent)


def test_models_load_late_and_are_let_go(toy_pipeline: Build, toy_networks: Any) -> None:
    pipeline = toy_pipeline()
    assert toy_networks.opened == []
    pipeline.settings("a")
    assert toy_networks.opened == []
    pipeline.generate("a", num_inference_steps=1, image_count=2)
    assert toy_networks.opened == ["text_encoder", "unet", "vae_decoder"]
    pipeline.release("denoiser")
    pipeline.generate("a", num_inference_steps=1)
    assert toy_networks.opened[3:] == ["unet"]
    pipeline.release()
    pipeline.generate("a", num_inference_steps=1)
    assert toy_networks.opened[4:] == ["text_encoder", "unet", "vae_decoder"]


def test_a_denoiser_that_is_alone_draws_the_same(toy_pipeline: Build, toy_networks: Any) -> None:
    (expected,) = toy_pipeline().generate("a", num_inference_steps=1)
    toy_networks.opened.clear()
    frugal = toy_pipeline()
    frugal.models.reduce_memory = True
    first, _ = frugal.generate("a", num_inference_steps=1, image_count=2)
    assert np.array_equal(np.asarray(first.image), np.asarray(expected.image))
    assert toy_networks.opened == ["text_encoder", "unet", "vae_decoder", "unet", "vae_decoder"]


def test_a_long_prompt_is_cut_with_a_warning(toy_pipeline: Build) -> None:
    pipeline = toy_pipeline()
    letters = " ".join("abcdefghij" * 8)
    with pytest.warns(PromptTruncatedWarning, match=r"77 tokens .* cut off its end: 'f g h i j'"):
        pipeline.steps(letters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.steps(letters[: 2 * 75])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps of at least 1, got 0"),
        ({"guidance_scale": float("nan")}, "finite guidance_scale, got nan"),
        ({"guidance_scale": float("inf")}, "finite guidance_scale, got inf"),
        ({"seed": -1}, "seed from 0 to 4294967295"),
        ({"seed": 2**32 - 1, "image_count": 2}, "seed from 0 to 4294967295"),
        ({"rng": "nvidia"}, "generator of numpy, torch, torch_cuda, got 'nvidia'"),
        ({"image_count": 0}, "image_count of at least 1, got 0"),
    ],
)
def test_senseless_settings(
    toy_pipeline: Build, toy_networks: Any, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        toy_pipeline().generate("a", **arguments)
    assert reason in str(caught.value)
    assert toy_networks.opened == []


def test_the_spacing_of_noise_levels_is_named(toy_pipeline: Build) -> None:
    karras = toy_pipeline(scheduler={"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True})
    assert karras.settings("a").schedule_type == "Karras"
    assert karras.settings("a", scheduler="ddim").schedule_type is None
    assert toy_pipeline().settings("a", scheduler="euler").schedule_type is None


def test_the_scheduler_is_the_bundles_unless_named(toy_pipeline: Build) -> None:
    assert toy_pipeline().settings("a").scheduler == "ddim"
    assert toy_pipeline().settings("a", scheduler="EulerDiscrete").scheduler == "euler"
    unnamed = toy_pipeline(scheduler={"_class_name": None})
    with pytest.raises(MissingComponentError, match="_class_name"):
        unnamed.settings("a")
    assert unnamed.settings("a", scheduler="pndm").scheduler == "pndm"


def test_what_a_bundle_lacks_is_named(toy_bundle: Any, toy_networks: Any) -> None:
    pipeline = Pipeline(toy_bundle(lacks=("text_encoder", "vae_decoder")), toy_networks.open)
    with pytest.raises(MissingComponentError, match="role text_encoder"):
        pipeline.steps("a", scheduler="pndm")


@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_decoder"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_overflow_is_not_painted_black(
    toy_pipeline: Build, toy_networks: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    network = getattr(toy_networks, name)

    def overflowing(*inputs: Any) -> Any:
        output = network(*inputs)
        output.flat[3] = value
        return output

    monkeypatch.setattr(toy_networks, name, overflowing)
    with pytest.raises(NumericsError, match=rf"{name}\.mlpackage, got NaN or infinity in 1 of"):
        toy_pipeline().generate("a", num_inference_steps=1)


def test_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert resolve_engine("auto") == OpenVINO()
    assert resolve_engine("portable", "bf16") == OpenVINO("bf16")
    with pytest.raises(EngineError, match="expected macOS for the engine coreml, got Linux"):
        resolve_engine("coreml")
    with pytest.raises(EngineError, match="expected precision to be one of 'fp32', got 'bf16'"):
        resolve_engine("reference", "bf16")
    with pytest.raises(EngineError, match="expected engine to be one of auto, portable, reference, coreml"):
        resolve_engine("cuda")
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert resolve_engine("auto") == CoreML()
    assert resolve_engine("portable") == OpenVINO()
    with pytest.raises(EngineError, match="only portable, reference has it"):
        resolve_engine("auto", "bf16")


def test_noise_is_drawn_in_the_latents_shape(toy_pipeline: Build, toy_networks: Any) -> None:
    next(toy_pipeline().steps("a", seed=3, rng="torch"))
    sample = toy_networks.calls["unet"][0]["sample"]
    noise = draw_noise((1, 4, 8, 8), 3, "torch").astype(np.float16)
    np.testing.assert_array_equal(sample, np.concatenate([noise, noise]))
