"""A picture remembers how it was made, and is written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image, PngImagePlugin
from sd_runtime import GeneratedImage, ImageSettings, ImageTextError, read_settings
from sd_runtime.decoding import to_image, to_pixels
from sd_runtime.png import webui_text

SETTINGS = ImageSettings(
    prompt="a red circle, 4k",
    negative_prompt="blurry",
    seed=93,
    rng="numpy",
    scheduler="pndm",
    num_inference_steps=20,
    guidance_scale=7.5,
    width=8,
    height=4,
    model="org/toy",
    engine="portable",
    precision="fp32",
)
PROMPTS = st.text(st.characters(codec="utf-8"), max_size=60)


def picture(**changes: object) -> GeneratedImage:
    image = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(4, 8, 3))
    return GeneratedImage(image, dataclasses.replace(SETTINGS, **changes))  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=PROMPTS, negative=PROMPTS, seed=st.integers(0, 2**32), scale=st.floats(-100, 100))
def test_settings_come_back(tmp_path: Path, prompt: str, negative: str, seed: int, scale: float) -> None:
    drawn = picture(prompt=prompt, negative_prompt=negative, seed=seed, guidance_scale=scale)
    drawn.save(tmp_path / "a.png")
    assert read_settings(tmp_path / "a.png") == drawn.settings
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("scheduler", "schedule_type", "said"),
    [
        ("dpmpp_2m", "Karras", "Sampler: DPM++ 2M, Schedule type: Karras, CFG"),
        ("dpm_2_ancestral", None, "Sampler: DPM2 a, CFG"),
        ("deis", None, "Sampler: deis, CFG"),
    ],
)
def test_a_sampler_has_the_web_uis_name(scheduler: str, schedule_type: str | None, said: str) -> None:
    made = dataclasses.replace(SETTINGS, scheduler=scheduler, schedule_type=schedule_type)
    assert said in webui_text(made)


def test_pixels_come_back(tmp_path: Path) -> None:
    drawn = picture()
    drawn.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        np.testing.assert_array_equal(np.asarray(read), np.asarray(drawn.image))


def test_web_uis_can_read_it(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as read:
        assert read.info["parameters"] == (
            "a red circle, 4k\n"
            "Negative prompt: blurry\n"
            "Steps: 20, Sampler: PLMS, CFG scale: 7.5, Seed: 93, Size: 8x4, Model: org/toy"
        )


@pytest.mark.parametrize("failing", ["replace", "save"])
@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, failure: type[BaseException]
) -> None:
    picture(seed=1).save(tmp_path / "a.png")

    def fail(*_: object, **__: object) -> None:
        raise failure("injected")

    monkeypatch.setattr(*((os, "replace", fail) if failing == "replace" else (Image.Image, "save", fail)))
    with pytest.raises(failure):
        picture(seed=2).save(tmp_path / "a.png")
    assert read_settings(tmp_path / "a.png").seed == 1
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "expected a text chunk 'sdc', got none"),
        ("{", "expected a JSON document"),
        ("{}", "expected this field at $.prompt"),
        ('{"prompt": 1}', "expected this field"),
    ],
)
def test_pictures_of_others(tmp_path: Path, text: str | None, reason: str) -> None:
    chunks = PngImagePlugin.PngInfo()
    if text is not None:
        chunks.add_text("sdc", text)
    picture().image.save(tmp_path / "a.png", pnginfo=chunks)
    with pytest.raises(ImageTextError) as caught:
        read_settings(tmp_path / "a.png")
    assert reason in str(caught.value)


def test_what_is_no_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(ImageTextError, match="expected a PNG"):
        read_settings(tmp_path / "a.png")
    picture().save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    with pytest.raises(ImageTextError):
        read_settings(tmp_path / "b.png")


def test_pixels_are_rounded_and_clipped() -> None:
    # 0.5/127.5 lies half way: numpy and diffusers round it to the even neighbour.
    values = np.array([-9, -1, -1 + 0.4 / 127.5, 0, 0.6 / 127.5, 1, 1.004, 9], dtype=np.float32)
    pixels = to_pixels(np.stack([values, values, values])[None, :, None])
    assert pixels.shape == (1, 8, 3)
    assert pixels[0, :, 0].tolist() == [0, 0, 0, 128, 128, 255, 255, 255]
    assert to_image(pixels).size == (8, 1)


@pytest.mark.parametrize("model", ["mix, v2", "a: b", 'the "best"', "two\nlines", "org/plain"])
def test_the_web_ui_reads_values_with_its_own_marks(model: str) -> None:
    """Read back by the pattern of its parser: names as it knows them, values in quotes where they need it."""
    made = dataclasses.replace(SETTINGS, model=model, scheduler="dpmpp_2m", rng="torch")
    pattern = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    found = dict(pattern.findall(webui_text(made).splitlines()[-1]))
    shown = found["Model"]
    assert (json.loads(shown) if shown.startswith('"') else shown) == model
    assert (found["Sampler"], found["RNG"], found["Size"]) == ("DPM++ 2M", "CPU", "8x4")
