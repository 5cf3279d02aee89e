"""Two passes: each is a picture that the pipeline draws alone, and the web UI's names for both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sd_runtime import (
    Bundle,
    BundleComponent,
    FunctionModel,
    ImageSize,
    LatentSize,
    PictureSize,
    Pipeline,
    PortSpec,
    SettingsError,
    Variant,
    draw_noise,
    read_settings,
    reused,
    webui_text,
)
from sd_runtime.tasks.hires import schedule_length, upscaled_latent

LARGE = ImageSize(128, 128)
FEW: dict[str, Any] = {"seed": 3, "num_inference_steps": 4, "rng": "torch", "negative_prompt": "b"}


def larger(port: PortSpec) -> PortSpec:
    if len(port.shape) != 4:
        return port
    height, width = port.shape[2:]
    return dataclasses.replace(port, shape=(*port.shape[:2], 2 * height, 2 * width))


def of_both_sizes(component: BundleComponent) -> BundleComponent:
    """The toy network for pictures of 128 by 128, too; the text has no size."""
    if component.role == "text_encoder":
        return component
    chunk = component.chunk
    inputs = (each if each.name == "encoder_hidden_states" else larger(each) for each in chunk.inputs)
    other = dataclasses.replace(chunk, inputs=tuple(inputs), outputs=tuple(map(larger, chunk.outputs)))
    return dataclasses.replace(component, variants=(*component.variants, Variant(LARGE, (other,))))


def with_model(bundle: Bundle, *components: BundleComponent, **facts: Any) -> Bundle:
    manifest = bundle.manifest
    model = dataclasses.replace(manifest.model, **facts)
    members = components or manifest.components
    manifest = dataclasses.replace(manifest, model=model, components=members)
    return dataclasses.replace(bundle, manifest=manifest)


@pytest.fixture
def two_sizes(toy_bundle: Callable[..., Bundle]) -> Bundle:
    bundle = toy_bundle(encoder=True)
    sizes = (*bundle.manifest.model.sizes, PictureSize(LARGE, LatentSize(4, 16, 16)))
    return with_model(bundle, *map(of_both_sizes, bundle.manifest.components), sizes=sizes)


def pixels(image: Any) -> np.ndarray:
    return np.asarray(image, np.int16)


@pytest.mark.parametrize("wanted", [(12, 18), (16, 24), (9, 13)])
def test_the_latent_is_upscaled_as_torch_does(wanted: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    latent = draw_noise((1, 4, 8, 12), 5)
    expected = torch.nn.functional.interpolate(torch.from_numpy(latent), wanted, mode="bilinear").numpy()
    np.testing.assert_allclose(upscaled_latent(latent, LatentSize(4, *wanted)), expected, atol=1e-5)


@given(st.integers(1, 60), st.floats(0.05, 1))
def test_as_many_steps_run_as_are_asked_for(steps: int, strength: float) -> None:
    length = schedule_length(steps, strength)
    assert int(length * strength) == steps
    assert length == steps or int((length - 1) * strength) < steps


def test_the_second_pass_is_image_to_image_of_the_first(two_sizes: Bundle, toy_networks: Any) -> None:
    """By pixels: the first picture, upscaled by Pillow, then drawn over at the larger size alone."""
    pipeline = Pipeline(two_sizes, toy_networks.open)
    (first,) = pipeline.generate("a", **FEW)
    upscaled = first.image.resize((128, 128), Image.Resampling.LANCZOS)
    alone = Pipeline(two_sizes, toy_networks.open, size=LARGE)
    second = {**FEW, "num_inference_steps": 6, "strength": 0.5, "image": upscaled}
    (expected,) = alone.generate("a", **second)
    (drawn,) = pipeline.generate(
        "a", **FEW, hires_scale=2, hires_upscaler="lanczos", hires_strength=0.5, hires_steps=3
    )
    assert drawn.image.size == (128, 128)
    np.testing.assert_array_equal(pixels(drawn.image), pixels(expected.image))
    assert (drawn.settings.width, drawn.settings.mode) == (64, "text-to-image")


def test_steps_are_numbered_through_and_shown(two_sizes: Bundle, toy_networks: Any) -> None:
    pipeline = Pipeline(two_sizes, toy_networks.open)
    steps = list(pipeline.steps("a", **FEW, hires_scale=2))
    assert [step.index for step in steps] == list(range(8))
    assert {step.total for step in steps} == {8}
    shapes = [pipeline.decode(step.denoised).size for step in steps]
    assert shapes == [(64, 64)] * 4 + [(128, 128)] * 4
    assert len(toy_networks.calls["text_encoder"]) == 2  # prompts are encoded once


def test_a_second_bundle_has_the_larger_size(two_sizes: Bundle, toy_networks: Any) -> None:
    whole = Pipeline(two_sizes, toy_networks.open)
    small = two_sizes.at_size()
    apart = Pipeline(small, toy_networks.open, hires=Pipeline(two_sizes.at_size(LARGE), toy_networks.open))
    (expected,), (drawn,) = (each.generate("a", **FEW, hires_scale=2) for each in (whole, apart))
    np.testing.assert_array_equal(pixels(drawn.image), pixels(expected.image))
    with pytest.raises(SettingsError, match=r"128x128 for hires_scale 2, .*--latent-w 16 --latent-h 16"):
        Pipeline(small, toy_networks.open).settings("a", hires_scale=2)
    other = Pipeline(with_model(two_sizes.at_size(LARGE), identifier="org/other"), toy_networks.open)
    with pytest.raises(SettingsError, match="identifier org/toy, got org/other"):
        Pipeline(small, toy_networks.open, hires=other).settings("a", hires_scale=2)


def test_with_little_memory_one_denoiser_at_a_time(two_sizes: Bundle, toy_networks: Any) -> None:
    pipeline = Pipeline(two_sizes, toy_networks.open, reduce_memory=True)
    steps = pipeline.steps("a", **FEW, hires_scale=2)
    for step in steps:
        if step.index == 4:
            assert pipeline.models.loaded == ()
            assert pipeline.at_size(LARGE).models.loaded == ("unet",)
    pipeline.release()
    assert pipeline.at_size(LARGE).models.loaded == ()


def test_the_web_uis_names(two_sizes: Bundle, toy_networks: Any, tmp_path: Path) -> None:
    pipeline = Pipeline(two_sizes, toy_networks.open)
    (drawn,) = pipeline.generate("a", **FEW, hires_scale=2, hires_upscaler="lanczos", hires_strength=0.4)
    said = webui_text(drawn.settings)
    for pair in (
        "Size: 64x64",
        "Denoising strength: 0.4",
        "Hires upscale: 2.0",
        "Hires steps: 4",
        "Hires upscaler: Lanczos",
    ):
        assert f", {pair}" in said
    drawn.save(tmp_path / "a.png")
    assert read_settings(tmp_path / "a.png") == drawn.settings
    (again,) = pipeline.generate(**reused(tmp_path / "a.png").with_options({}))
    np.testing.assert_array_equal(pixels(again.image), pixels(drawn.image))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hires_scale": 1.0}, "hires_scale above 1"),
        ({"hires_scale": float("nan")}, "finite hires_scale"),
        ({"hires_scale": 2, "hires_upscaler": "esrgan"}, "of latent, lanczos, got 'esrgan'"),
        ({"hires_scale": 2, "hires_strength": 0.0}, "hires_strength above 0"),
        ({"hires_scale": 2, "hires_steps": 0}, "hires_steps of at least 1"),
        ({"hires_steps": 3}, "hires_scale for hires_steps, got none"),
        ({"hires_scale": 1.01}, "whole pixels of 64x64"),
        ({"hires_scale": 2, "timesteps": (900, 1)}, "without timesteps"),
        ({"hires_scale": 2, "recipe": "dmd2-4"}, "timesteps of the recipe dmd2-4"),
        ({"hires_scale": 2, "image": Image.new("RGB", (64, 64))}, "a picture drawn from noise"),
    ],
)
def test_nonsense_is_refused(two_sizes: Bundle, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Pipeline(two_sizes, lambda _: FunctionModel(dict)).settings("a", **options)
