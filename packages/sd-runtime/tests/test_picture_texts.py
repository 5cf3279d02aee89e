"""Settings inside JPEG and WebP, where web UIs read them, and back from theirs."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import ExifTags, Image, PngImagePlugin
from sd_bundle import ImageSize
from sd_runtime import (
    ControlSettings,
    GeneratedImage,
    ImageSettings,
    ImageTextError,
    Request,
    SettingsError,
    read_settings,
    reused,
    webui_text,
)
from sd_runtime.infotext import parse_infotext

SETTINGS = ImageSettings(
    prompt="a red circle, 4k",
    negative_prompt="blurry",
    seed=93,
    rng="torch",
    scheduler="euler_ancestral",
    num_inference_steps=20,
    guidance_scale=7.5,
    width=8,
    height=4,
    model="org/toy",
    engine="portable",
    precision="fp32",
    spacing="karras",
)
PROMPTS = st.text(st.characters(codec="utf-8"), max_size=60)
THEIRS = (
    "a (red:1) cat\nsecond line\nNegative prompt: dog,\nbird\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 5, Size: 512x768, "
    'Model hash: abc, Model: "a, b", RNG: CPU, Version: v1.10.1'
)


def picture(**changes: Any) -> GeneratedImage:
    image = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(4, 8, 3))
    return GeneratedImage(image, dataclasses.replace(SETTINGS, **changes))


def of_others(path: Path, text: str) -> Path:
    """A PNG as the web UI writes it."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", text)
    picture().image.save(path, pnginfo=chunks)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp", ".png"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=PROMPTS, seed=st.integers(0, 2**32))
def test_settings_come_back_from_every_format(tmp_path: Path, suffix: str, prompt: str, seed: int) -> None:
    drawn = picture(prompt=prompt, seed=seed)
    drawn.save(tmp_path / f"a{suffix}")
    assert read_settings(tmp_path / f"a{suffix}") == drawn.settings


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_web_ui_reads_the_comment(tmp_path: Path, suffix: str) -> None:
    """As piexif's ``UserComment.load``, which it uses: UNICODE, then UTF-16 with the high byte first."""
    drawn = picture(prompt="ein Kätzchen 🐈")
    drawn.save(tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as read:
        comment = read.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == webui_text(drawn.settings)


def test_webp_loses_nothing_and_jpeg_little(tmp_path: Path) -> None:
    drawn = picture()
    for suffix, most in ((".webp", 0), (".jpg", 8)):
        drawn.save(tmp_path / f"a{suffix}")
        with Image.open(tmp_path / f"a{suffix}") as read:
            error = np.abs(np.asarray(read, np.int16) - np.asarray(drawn.image, np.int16)).max()
        assert error <= most


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImageTextError, match=r"ends in \.png, \.jpg, \.jpeg, \.webp; got a\.bmp"):
        picture().save(tmp_path / "a.bmp")
    with pytest.raises(ImageTextError, match="at most 65533 bytes in a JPEG"):
        picture(prompt="a" * 40000).save(tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=100, deadline=None)
@given(
    prompt=st.text("abc ,:()\n", max_size=20), steps=st.integers(1, 99), model=st.text('ab,: "\\', max_size=9)
)
def test_what_the_web_ui_would_read_is_what_was_written(prompt: str, steps: int, model: str) -> None:
    made = dataclasses.replace(SETTINGS, prompt=prompt, num_inference_steps=steps, model=model)
    found = parse_infotext(webui_text(made))
    lines = [line.strip() for line in prompt.lstrip().split("\n")]
    assert found.prompt == "\n".join(lines)
    assert (found.negative_prompt, found.pairs["Steps"], found.pairs["Seed"]) == ("blurry", str(steps), "93")


def test_settings_of_a_web_ui(tmp_path: Path) -> None:
    found = reused(of_others(tmp_path / "a.png", THEIRS))
    assert found.with_options({}) == {
        "prompt": "a (red:1) cat\nsecond line",
        "negative_prompt": "dog,\nbird",
        "prompt_syntax": "a1111",
        "seed": 5,
        "num_inference_steps": 20,
        "guidance_scale": 7.0,
        "scheduler": "dpmpp_2m",
        "spacing": "karras",
        "rng": "torch",
        "recipe": "none",
    }
    assert (found.size, found.model) == (ImageSize(width=512, height=768), "a, b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((" Version: v1.10.1", " ENSD: 31337"), "ENSD: 31337"),
        ((" Version: v1.10.1", " Hires upscaler: ESRGAN_4x"), "Hires upscaler: ESRGAN_4x"),
        ((" Version: v1.10.1", " Denoising strength: 0.4"), "expected image beside"),
        (("Sampler: DPM++ 2M", "Sampler: Restart"), "Sampler: Restart"),
        (("Steps: 20", "Steps: many"), "Steps: many"),
        (("second line", "<lora:detail:0.8>"), "<lora:detail:0.8>"),
    ],
)
def test_what_cannot_be_honoured_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    found = reused(of_others(tmp_path / "a.png", THEIRS.replace(*change)))
    with pytest.raises(SettingsError, match=said.replace("+", r"\+")):
        found.with_options({})


def test_what_is_stated_comes_first(tmp_path: Path) -> None:
    found = reused(of_others(tmp_path / "a.png", THEIRS.replace("DPM++ 2M", "Restart")))
    options = found.with_options({"scheduler": "euler", "timesteps": (900, 1)})
    assert options["scheduler"] == "euler"
    assert not options.keys() & {"spacing", "num_inference_steps"}


def test_our_own_settings_are_all_there(tmp_path: Path) -> None:
    drawn = picture(eta=0.5, original_size=(3, 4), mode="image-to-image", image_sha256="ab", strength=0.5)
    drawn.save(tmp_path / "a.webp")
    found = reused(tmp_path / "a.webp")
    with pytest.raises(SettingsError, match="expected image beside"):
        found.with_options({})
    options = found.with_options({"image": "a.png"})
    request = Request(**options)
    assert (request.prompt, request.seed, request.rng) == ("a red circle, 4k", 93, "torch")
    assert (request.eta, request.original_size, request.strength) == (0.5, (3, 4), 0.5)
    control = ControlSettings(
        component="c", hint_sha256="", scale=1, start=0, end=1, guess_mode=False, mask_sha256=None
    )
    picture(controls=(control,)).save(tmp_path / "b.png")
    with pytest.raises(SettingsError, match="expected steer beside"):
        reused(tmp_path / "b.png").with_options({})


def test_every_setting_is_used_again_or_known_to_be_no_option() -> None:
    from sd_runtime import reuse

    facts = {"width", "height", "model", "engine", "precision", "schedule_type", "mode", "recipe", "safety"}
    names = {each.name for each in dataclasses.fields(ImageSettings)}
    assert names == {*reuse._SAME, *reuse._GIVEN, *facts}


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", b"\xff\xd8\xff\xe1\0\x10Exif\0\0MM\0*\xff\xff\xff\xff"]
)
def test_no_picture_no_settings(content: bytes) -> None:
    with pytest.raises(ImageTextError):
        reused(io.BytesIO(content))


def test_a_picture_without_settings(tmp_path: Path) -> None:
    picture().image.save(tmp_path / "a.jpg")
    with pytest.raises(ImageTextError, match="as web UIs write them, got none"):
        reused(tmp_path / "a.jpg")
