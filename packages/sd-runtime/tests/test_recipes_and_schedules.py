"""Recipes by what a bundle says, settings of samplers in the settings of a picture, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from sd_bundle import MergedLora, SourceFile, WeightSources
from sd_runtime import (
    RECIPES,
    Bundle,
    GeneratedImage,
    Pipeline,
    Request,
    SamplingOptions,
    SettingsError,
    read_settings,
)
from sd_schedulers import SCHEDULERS, ScheduleError

LORAS = [
    ("ByteDance/Hyper-SD/Hyper-SD15-4steps-lora.safetensors", "hyper-sd-4"),
    ("hyper-sd15-4steps-lora.safetensors", "hyper-sd-4"),
    ("Hyper-SDXL-1step-lora.safetensors", "hyper-sd-1"),
    ("sdxl_lightning_8step_lora.safetensors", "lightning-8"),
    ("latent-consistency/lcm-lora-sdv1-5/pytorch_lora_weights.safetensors", "lcm-lora"),
    ("dmd2_sdxl_4step_lora_fp16.safetensors", "dmd2-4"),
    ("h1t/TCD-SD15-LoRA/pytorch_lora_weights.safetensors", "tcd"),
    ("lcm-lora-sdv1-5.safetensors", "lcm-lora"),
    ("LCM_LoRA_sdv1-5.safetensors", "lcm-lora"),
    ("TCD-SDXL-LoRA.safetensors", "tcd"),
    ("sd-turbo-like.safetensors", None),
    ("not-hyper-sd15-4steps-lora.safetensors", None),
    ("pytorch_lora_weights.safetensors", None),
]


@pytest.fixture
def made_of(toy_bundle: Callable[..., Bundle], toy_networks: Any) -> Callable[..., Pipeline]:
    """A pipeline of a bundle that a LoRA was merged into."""

    def build(lora: str, scale: float = 1.0) -> Pipeline:
        sound = toy_bundle()
        merged = MergedLora(SourceFile(lora, 5, "ab" * 32), scale, 0.0)
        weights = WeightSources(files={}, loras=(merged,), embeddings=(), vae=None)
        provenance = dataclasses.replace(sound.manifest.provenance, weights=weights)
        manifest = dataclasses.replace(sound.manifest, provenance=provenance)
        return Pipeline(dataclasses.replace(sound, manifest=manifest), toy_networks.open)

    return build


def test_requests_have_the_options_as_fields() -> None:
    names = [field.name for field in dataclasses.fields(Request)]
    assert sorted(names) == sorted(["prompt", *SamplingOptions.__annotations__])


@pytest.mark.parametrize(("lora", "recipe"), LORAS)
def test_the_recipe_of_a_published_lora(made_of: Any, lora: str, recipe: str | None) -> None:
    settings = made_of(lora).settings("a")
    assert settings.recipe == recipe
    if recipe is None:
        assert (settings.scheduler, settings.num_inference_steps) == ("ddim", 20)
        return
    for name, value in RECIPES[recipe].fields.items():
        assert getattr(settings, name) == value
    assert made_of(lora, scale=0.0).settings("a").recipe is None
    plain = made_of(lora).settings("a", recipe="none")
    assert (plain.recipe, plain.scheduler, plain.guidance_scale) == (None, "ddim", 7.5)


def stating(pipeline: Pipeline, recipe: str) -> Pipeline:
    manifest = pipeline.bundle.manifest
    model = dataclasses.replace(manifest.model, recipe=recipe)
    bundle = dataclasses.replace(pipeline.bundle, manifest=dataclasses.replace(manifest, model=model))
    return Pipeline(bundle, pipeline._open_model)


def test_the_recipe_that_a_bundle_states(made_of: Any) -> None:
    """It comes before what names say, and after what is asked for."""
    stated = stating(made_of("Hyper-SD15-4steps-lora.safetensors"), "tcd")
    settings = stated.settings("a")
    assert (settings.recipe, settings.scheduler, settings.eta) == ("tcd", "tcd", 0.3)
    assert stated.settings("a", recipe="lcm-lora").recipe == "lcm-lora"
    assert stated.settings("a", recipe="none").recipe is None
    assert stating(made_of("Hyper-SD15-4steps-lora.safetensors"), "none").settings("a").recipe is None


def test_a_recipe_of_a_later_version(made_of: Any) -> None:
    later = stating(made_of("x.safetensors"), "telepathy")
    with pytest.raises(SettingsError, match=r"to ask for a recipe of lcm, .*, got 'telepathy': update"):
        later.settings("a")
    assert later.settings("a", recipe="none").scheduler == "ddim"


@pytest.mark.parametrize(
    ("scheduler", "recipe"), [("LCMScheduler", "lcm-lora"), ("TCDScheduler", "tcd"), ("DDIMScheduler", None)]
)
def test_the_recipe_of_a_scheduler_config(toy_pipeline: Any, scheduler: str, recipe: str | None) -> None:
    settings = toy_pipeline(scheduler={"_class_name": scheduler}).settings("a")
    assert settings.recipe == recipe
    assert settings.guidance_scale == (7.5 if recipe is None else RECIPES[recipe].fields["guidance_scale"])


def test_what_is_said_comes_before_the_recipe(toy_pipeline: Any) -> None:
    pipeline = toy_pipeline()
    own = pipeline.settings("a", recipe="tcd", eta=0.8, num_inference_steps=6, guidance_scale=1.5)
    assert (own.recipe, own.scheduler, own.eta) == ("tcd", "tcd", 0.8)
    assert (own.num_inference_steps, own.guidance_scale) == (6, 1.5)
    other = pipeline.settings("a", recipe="hyper-sd-4", scheduler="euler_ancestral")
    assert (other.num_inference_steps, other.guidance_scale, other.spacing) == (4, 0.0, None)
    spread = pipeline.settings("a", recipe="dmd2-4", timesteps=[900, 300])
    assert (spread.timesteps, spread.num_inference_steps, spread.scheduler) == ((900, 300), 2, "lcm")


def test_other_numbers_of_steps_leave_the_bundles_timesteps_out(made_of: Any) -> None:
    settings = made_of("dmd2_sdxl_4step_lora.safetensors").settings("a", num_inference_steps=6)
    assert (settings.scheduler, settings.num_inference_steps, settings.timesteps) == ("lcm", 6, None)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"recipe": "hyper-sd-3"}, SettingsError, "a recipe of lcm, .*, or none; got 'hyper-sd-3'"),
        (
            {"recipe": "dmd2-4", "num_inference_steps": 3},
            SettingsError,
            "num_inference_steps 4 for the recipe",
        ),
        ({"scheduler": "euler", "eta": 0.5}, ScheduleError, "no eta for scheduler 'euler'"),
        ({"eta": 1.5}, ScheduleError, "eta from 0 to 1, got 1.5"),
        ({"eta": float("nan")}, SettingsError, "finite eta"),
        ({"mu": 0.5}, ScheduleError, "no mu for scheduler 'ddim'"),
        ({"scheduler": "unipc", "mu": 0.5}, ScheduleError, "flow-matching schedule with mu"),
        (
            {"spacing": "karras"},
            ScheduleError,
            "leading, linspace, trailing for scheduler 'ddim', got 'karras'",
        ),
        ({"spacing": "even"}, ScheduleError, "a spacing of leading, .*; got 'even'"),
        ({"timesteps": [900, 300]}, ScheduleError, "no timesteps for scheduler 'ddim'"),
        ({"sigmas": [3.0, 0.0]}, ScheduleError, "no sigmas for scheduler 'ddim'"),
        ({"scheduler": "euler", "timesteps": [300, 900]}, ScheduleError, "2 timesteps .*, falling"),
        ({"scheduler": "euler", "timesteps": []}, SettingsError, "timesteps for at least one step"),
        ({"scheduler": "euler", "timesteps": [1.5]}, SettingsError, "timesteps to be whole numbers, got 1.5"),
        ({"scheduler": "euler", "sigmas": [3.0]}, SettingsError, "sigmas for at least one step"),
        ({"scheduler": "euler", "sigmas": [float("inf"), 0.0]}, SettingsError, "finite numbers, got inf"),
        ({"spacing": "leading", "timesteps": [9]}, SettingsError, "one of spacing, timesteps, got all"),
        (
            {"scheduler": "euler", "timesteps": [9, 5], "num_inference_steps": 3},
            SettingsError,
            "num_inference_steps 2 with these timesteps, got 3",
        ),
        ({"scheduler": "dpmpp_2m", "num_inference_steps": 1000}, ScheduleError, "use fewer steps"),
    ],
)
def test_what_would_not_be_honoured_is_refused(
    toy_pipeline: Any, toy_networks: Any, options: Any, error: Any, said: str
) -> None:
    with pytest.raises(error, match=said):
        toy_pipeline().settings("a", **options)
    assert toy_networks.opened == []


@pytest.mark.parametrize("spacing", ["karras", "SGM Uniform", "align your steps"])
def test_spacings_are_kept_under_one_name_and_come_back(
    toy_pipeline: Any, tmp_path: Any, spacing: str
) -> None:
    pipeline = toy_pipeline()
    (drawn,) = pipeline.generate("a", scheduler="dpmpp_2m", spacing=spacing, num_inference_steps=4)
    drawn.save(tmp_path / "a.png")
    found = read_settings(tmp_path / "a.png")
    assert found == drawn.settings
    assert found.spacing in ("karras", "trailing", "align_your_steps")
    names = {"karras": "Karras", "trailing": "SGM Uniform", "align_your_steps": "Align Your Steps"}
    with Image.open(tmp_path / "a.png") as image:
        assert f"Schedule type: {names[found.spacing]}, " in image.text["parameters"]
    (again,) = pipeline.generate(
        "a", scheduler=found.scheduler, spacing=found.schedule_type, num_inference_steps=4
    )
    assert again == drawn


def test_ten_steps_are_those_of_align_your_steps(toy_pipeline: Any) -> None:
    pipeline = toy_pipeline()
    options = {"scheduler": "dpmpp_2m", "spacing": "align_your_steps"}
    found = [step.timestep for step in pipeline.steps("a", **options)]
    assert found == [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    assert len(list(pipeline.steps("a", **options, num_inference_steps=7))) == 7


def test_eta_is_said_where_it_is_not_the_schedulers_own(toy_pipeline: Any, tmp_path: Any) -> None:
    from sd_runtime.png import webui_text

    pipeline = toy_pipeline()
    assert pipeline.settings("a").eta == SCHEDULERS["ddim"].eta
    assert "Eta" not in webui_text(pipeline.settings("a"))
    assert "Eta DDIM: 0.4" in webui_text(pipeline.settings("a", eta=0.4))
    assert "Eta: 0.9" in webui_text(pipeline.settings("a", scheduler="tcd", eta=0.9))


def test_settings_of_earlier_pictures_are_read(toy_pipeline: Any, tmp_path: Any) -> None:
    import json

    from PIL import PngImagePlugin
    from sd_bundle import encode

    settings = toy_pipeline().settings("a")
    earlier = {
        name: value
        for name, value in encode(settings).items()
        if name not in ("spacing", "timesteps", "sigmas", "eta", "mu", "recipe")
    }
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("sdc", json.dumps(earlier))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunks)
    assert read_settings(tmp_path / "a.png") == dataclasses.replace(settings, eta=None)
    GeneratedImage(Image.new("RGB", (4, 4)), settings).save(tmp_path / "b.png")
    assert read_settings(tmp_path / "b.png") == settings
