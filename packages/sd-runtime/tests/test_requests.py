"""Options to settings: defaults by what the manifest says, and refusals of what would have no effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sd_runtime import (
    Bundle,
    FunctionModel,
    MissingComponentError,
    Pipeline,
    PortsError,
    PortSpec,
    SettingsError,
    Variant,
    memory,
    read_settings,
)

PICTURE = Image.new("RGB", (64, 64), (10, 200, 90))
MASK = Image.new("L", (64, 64), 255)
TIME_IDS = {"size": 6, "aesthetic_score": 5}


@pytest.fixture
def model(toy_bundle: Callable[..., Bundle]) -> Callable[..., Pipeline]:
    """A pipeline whose manifest says other things of the model; its networks are never asked."""

    def build(
        *,
        task: str = "text-to-image",
        family: str = "sd1",
        time_ids: str = "none",
        guidance_embedding: bool = False,
        encoder: bool = True,
        scheduler: str = "DDIMScheduler",
    ) -> Pipeline:
        sound = toy_bundle(scheduler={"_class_name": scheduler})
        facts = sound.manifest.model
        conditioning = dataclasses.replace(
            facts.conditioning, time_ids=time_ids, guidance_embedding=guidance_embedding
        )
        facts = dataclasses.replace(facts, task=task, family=family, conditioning=conditioning)
        text, unet, decoder = sound.manifest.components
        sample = PortSpec("sample", (2, facts.denoiser_channels, 8, 8), "float16")
        inputs = (sample, *unet.inputs[1:])
        if time_ids != "none":
            told = PortSpec("time_ids", (2, TIME_IDS[time_ids]), "float16")
            inputs += (told, PortSpec("text_embeds", (2, 6), "float16"))
        if guidance_embedding:
            inputs += (PortSpec("timestep_cond", (2, 8), "float16"),)
        whole = Variant(facts.image, (dataclasses.replace(unet.chunk, inputs=inputs),))
        unet = dataclasses.replace(unet, variants=(whole,))
        image_encoder = dataclasses.replace(decoder, name="vae_encoder", role="image_encoder")
        components = (text, unet, decoder, *([image_encoder] if encoder else []))
        manifest = dataclasses.replace(sound.manifest, model=facts, components=components)
        return Pipeline(dataclasses.replace(sound, manifest=manifest), lambda _: FunctionModel(dict))

    return build


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ({}, {}, {"guidance_scale": 7.5, "num_inference_steps": 20, "mode": "text-to-image"}),
        ({"family": "sdxl", "time_ids": "size"}, {}, {"guidance_scale": 5.0, "aesthetic_score": None}),
        ({"guidance_embedding": True}, {}, {"guidance_scale": 8.5}),
        ({"scheduler": "LCMScheduler"}, {}, {"scheduler": "lcm", "num_inference_steps": 4}),
        ({}, {"image": PICTURE}, {"mode": "image-to-image", "strength": 0.8}),
        (
            {"family": "sdxl-refiner", "time_ids": "aesthetic_score"},
            {"image": PICTURE},
            {"strength": 0.3, "aesthetic_score": 6.0, "negative_aesthetic_score": 2.5},
        ),
        ({"task": "inpainting"}, {"image": PICTURE, "mask": MASK}, {"strength": 1.0, "mode": "inpainting"}),
        (
            {"task": "instruct-pix2pix"},
            {"image": PICTURE},
            {"image_guidance_scale": 1.5, "strength": None, "mode": "instruct-pix2pix"},
        ),
    ],
)
def test_defaults(model: Any, kind: Any, options: Any, expected: Any) -> None:
    settings = model(**kind).settings("a", **options)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ({"task": "inpainting"}, {}, "an image for the inpainting model org/toy"),
        ({"task": "inpainting"}, {"image": PICTURE}, "a mask for the inpainting model"),
        (
            {"task": "instruct-pix2pix"},
            {"image": PICTURE, "mask": MASK},
            "a model that does, for mask, got mask",
        ),
        ({"task": "instruct-pix2pix"}, {}, "an image for the instruct-pix2pix model"),
        ({}, {"mask": MASK}, "an image to paint a part of, and a model that does, for mask"),
        ({}, {"strength": 0.5}, "an image to start from for strength"),
        ({}, {"image": PICTURE, "strength": 1.5}, "strength above 0 and up to 1"),
        ({}, {"image": PICTURE, "strength": float("nan")}, "finite strength"),
        ({"task": "instruct-pix2pix"}, {"image": PICTURE, "strength": 0.5}, "for strength"),
        ({}, {"image_guidance_scale": 1.5}, "an InstructPix2Pix model for image_guidance_scale"),
        ({}, {"original_size": (8, 8)}, "an SDXL model, which is told sizes for original_size"),
        ({"family": "sdxl", "time_ids": "size"}, {"target_size": (0, 8)}, "two whole numbers from 1"),
        ({"family": "sdxl", "time_ids": "size"}, {"crop_top_left": (1.5, 8)}, "two whole numbers from 0"),
        ({"family": "sdxl", "time_ids": "size"}, {"aesthetic_score": 6.0}, "told an aesthetic score"),
        ({}, {"refiner_start": 0.5}, "a refiner for refiner_start"),
    ],
)
def test_what_makes_no_sense_is_refused(model: Any, kind: Any, options: Any, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        model(**kind).settings("a", **options)
    assert said in str(caught.value)


def test_an_option_with_a_typing_error_is_not_ignored(model: Any) -> None:
    with pytest.raises(TypeError, match=r"guidance_scale.*got 'guidance'"):
        model().generate("a", guidance=3.0)


def test_an_image_needs_an_encoder(model: Any) -> None:
    with pytest.raises(MissingComponentError, match="role image_encoder"):
        model(encoder=False).settings("a", image=PICTURE)


def test_a_refiner_has_the_bases_latents(model: Any) -> None:
    base = model(family="sdxl", time_ids="size")
    refiner = model(family="sdxl-refiner", time_ids="aesthetic_score")
    settings = base.settings("a", refiner=refiner)
    assert (settings.refiner, settings.refiner_start, settings.aesthetic_score) == ("org/toy", 0.8, 6.0)
    with pytest.raises(SettingsError, match="refiner_start below 1"):
        base.settings("a", refiner=refiner, refiner_start=1.0)
    with pytest.raises(SettingsError, match="expected a refiner for latents"):
        base.settings("a", refiner=model(task="inpainting"))


def test_every_setting_comes_back_from_the_png(model: Any, tmp_path: Any) -> None:
    from sd_runtime import GeneratedImage

    pipeline = model(family="sdxl", time_ids="size")
    refiner = model(family="sdxl-refiner", time_ids="aesthetic_score")
    options = {"image": PICTURE, "strength": 0.4, "original_size": (7, 9), "crop_top_left": (0, 3)}
    settings = pipeline.settings("a", refiner=refiner, **options)
    GeneratedImage(PICTURE, settings).save(tmp_path / "a.png")
    assert read_settings(tmp_path / "a.png") == settings
    with Image.open(tmp_path / "a.png") as image:
        line = image.text["parameters"].splitlines()[-1]
    assert "Denoising strength: 0.4" in line
    assert "Refiner switch at: 0.8" in line
    assert "Image CFG scale" not in line


def test_models_that_wait_make_room_where_memory_is_short(
    toy_pipeline: Any, toy_networks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = toy_pipeline()
    (plenty,) = pipeline.generate("a", num_inference_steps=1)
    pipeline.release()
    toy_networks.opened.clear()
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    together = pipeline.generate("a", num_inference_steps=1, image_count=2)
    assert together[0].image == plenty.image
    # The text is remembered; denoiser and decoder take turns.
    assert toy_networks.opened == ["text_encoder", "unet", "vae_decoder", "unet", "vae_decoder"]
    assert len(pipeline.models.loaded) == 1


def test_available_memory_is_a_number_of_bytes_or_unknown() -> None:
    found = memory.available_memory()
    assert found is None or found > 2**20


def test_components_that_do_not_fit_are_named(toy_pipeline: Any) -> None:
    pipeline = toy_pipeline()
    with pytest.raises(PortsError, match=r"'z' of shape \[1, 4, 8, 8\] .* got \[1, 4, 4, 4\]"):
        pipeline.decode(np.zeros((1, 4, 4, 4), np.float32))
