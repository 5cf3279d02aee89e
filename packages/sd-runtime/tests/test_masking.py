"""Masks with soft edges, parts drawn alone, what they start from: by diffusers' and the web UI's formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from sd_bundle import ImageSize
from sd_runtime import Bundle, Pipeline, SettingsError, read_settings, reused
from sd_runtime.masking import crop_region, filled, masked
from sd_runtime.noise import NoiseStream
from sd_runtime.sampling import _begun
from sd_runtime.user_image import UserImage

SIZE = ImageSize(width=64, height=64)
FAST: Any = {"num_inference_steps": 4, "rng": "torch", "seed": 5}


def noise(width: int, height: int, seed: int = 3) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def white(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


@pytest.fixture
def pipeline(toy_bundle: Callable[..., Bundle], toy_networks: Any) -> Pipeline:
    return Pipeline(toy_bundle(encoder=True), toy_networks.open)


def pixels(image: Image.Image) -> Any:
    return np.asarray(image).astype(int)


def test_the_part_is_the_one_that_diffusers_cuts() -> None:
    processor = pytest.importorskip("diffusers.image_processor").VaeImageProcessor
    rng = np.random.default_rng(1)
    for _ in range(300):
        size = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
        left, top = int(rng.integers(0, size[0])), int(rng.integers(0, size[1]))
        box = (left, top, int(rng.integers(left, size[0])) + 1, int(rng.integers(top, size[1])) + 1)
        wanted = ImageSize(width=int(rng.integers(1, 9)) * 8, height=int(rng.integers(1, 9)) * 8)
        padding = int(rng.integers(0, 40))
        mask = white(size, box)
        expected = processor.get_crop_region(mask, wanted.width, wanted.height, padding)
        assert crop_region(mask, wanted, padding) == expected, (size, box, wanted, padding)


@pytest.mark.parametrize(
    ("size", "box", "padding"),
    [((200, 150), (90, 60, 110, 75), 8), ((40, 150), (0, 10, 40, 130), 0), ((150, 30), (5, 5, 140, 20), 4)],
)
def test_the_part_is_fitted_and_put_back_as_by_diffusers(
    size: tuple[int, int], box: tuple[int, int, int, int], padding: int
) -> None:
    """Also where the picture is too narrow for the model's proportions."""
    processor = pytest.importorskip("diffusers.image_processor").VaeImageProcessor()
    image, mask = noise(*size), white(size, box)
    soft = processor.blur(mask, 3)
    region = processor.get_crop_region(soft, 64, 64, padding)
    found = masked(image, mask, SIZE, blur=3, padding=padding)
    for given, ours in ((image, found.image), (soft, found.mask)):
        part = given.crop(region)
        expected = np.asarray(processor._resize_and_fill(part, 64, 64).convert(given.mode))
        width, height = (min(64, 64 * a // b) for a, b in (part.size, part.size[::-1]))
        left, top = 32 - width // 2, 32 - height // 2
        inner = np.s_[top : top + height, left : left + width]
        np.testing.assert_array_equal(ours.pixels[inner], expected[inner])
        assert (ours.pixels[:, :left] == ours.pixels[:, left : left + 1]).all()  # the edge, repeated; theirs
        assert (ours.pixels[:top] == ours.pixels[top]).all()  # is a bicubic one that overshoots
    painted = noise(64, 64, seed=7)
    assert found.kept is not None
    theirs = processor.apply_overlay(soft, image, painted, region)
    assert np.abs(pixels(found.kept.around(painted)) - pixels(theirs)).max() <= 2  # premultiplied bytes


def test_soft_edges_are_those_of_the_web_ui() -> None:
    """modules/processing.py: blurred, resized, doubled for the overlay, which is laid on premultiplied."""
    cv2 = pytest.importorskip("cv2")
    image, mask = noise(64, 64), white((128, 128), (30, 40, 90, 100))
    found = masked(image, mask, SIZE, blur=5, padding=None)
    width = 2 * int(2.5 * 5 + 0.5) + 1
    soft = cv2.GaussianBlur(cv2.GaussianBlur(np.asarray(mask), (width, 1), 5), (1, width), 5)
    theirs = Image.fromarray(soft).resize((64, 64), Image.Resampling.LANCZOS)
    assert np.abs(found.mask.pixels.astype(int) - pixels(theirs)).max() <= 8  # Pillow's Gaussian is of boxes
    overlay_mask = Image.fromarray(np.clip(np.asarray(theirs, np.float32) * 2, 0, 255).astype(np.uint8))
    overlay = Image.new("RGBa", (64, 64))
    overlay.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(overlay_mask))
    painted = Image.new("RGB", (64, 64), (200, 30, 90))
    expected = painted.convert("RGBA")
    expected.alpha_composite(overlay.convert("RGBA"))
    assert found.kept is not None
    around = found.kept.around(painted)
    assert np.abs(pixels(around) - pixels(expected.convert("RGB"))).max() <= 16
    assert (pixels(around)[32, 32] == (200, 30, 90)).all()
    assert (pixels(around)[0] == pixels(image)[0]).all()


def test_masked_parts_are_filled_as_by_the_web_ui() -> None:
    """modules/masking.py, in Pillow's bytes."""
    image = noise(96, 80).filter(ImageFilter.GaussianBlur(6))
    mask = white((96, 80), (20, 10, 70, 50)).filter(ImageFilter.GaussianBlur(4))

    expected = Image.new("RGBA", image.size)
    kept = Image.new("RGBa", image.size)
    kept.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    for radius, repeats in [(256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)]:
        blurred = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            expected.alpha_composite(blurred)

    found = filled(UserImage(np.asarray(image), image.size), UserImage(np.asarray(mask), image.size))
    error = np.abs(found.pixels.astype(int) - pixels(expected.convert("RGB")))
    assert error.mean() < 1
    assert error.max() <= 8
    assert np.abs(found.pixels.astype(int) - pixels(image))[20:40, 30:60].mean() > 2
    everything = UserImage(np.full((80, 96), 255, np.uint8), image.size)
    assert not filled(UserImage(np.asarray(image), image.size), everything).pixels.any()


@pytest.mark.parametrize("content", ["original", "fill", "latent_noise", "latent_nothing"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_what_the_masked_part_starts_from(pipeline: Pipeline, content: str, strength: float) -> None:
    image, mask = noise(64, 64), white((64, 64), (0, 0, 32, 64))
    drawing = pipeline._drawing(
        "a", {**FAST, "image": image, "mask": mask, "mask_content": content, "strength": strength}
    )
    settings = drawing.settings
    assert settings.mask_content == content
    start: Any = _begun(drawing, pipeline.models, NoiseStream(5, "torch")).start
    new = {
        "original": image,
        "fill": Image.fromarray(
            filled(UserImage(np.asarray(image), (64, 64)), UserImage(np.asarray(mask), (64, 64))).pixels
        ),
    }.get(content)
    # the order of diffusers: noise of the picture's latent, then that to start from
    stream = NoiseStream(5, "torch")
    stream.draw((1, 4, 8, 8))
    fresh = stream.draw((1, 4, 8, 8))
    np.testing.assert_array_equal(start.noise, fresh)
    if content == "latent_noise":
        np.testing.assert_array_equal(start.image[..., :4], fresh[..., :4])
    elif content == "latent_nothing":
        assert not start.image[..., :4].any()
    else:
        assert new is not None
        plain = pipeline._drawing("a", {**FAST, "image": new, "strength": strength})
        other: Any = _begun(plain, pipeline.models, NoiseStream(5, "torch")).start
        np.testing.assert_allclose(start.image, other.image, atol=1e-6)
    assert (start.image[..., 4:] != 0).all()


def test_kept_pixels_are_the_pictures_own(pipeline: Pipeline, tmp_path: Path) -> None:
    image, mask = noise(64, 64), white((64, 64), (32, 0, 64, 64))
    (drawn,) = pipeline.generate("a", image=image, mask=mask, mask_blur=2, **FAST)
    error = np.abs(pixels(drawn.image) - pixels(image)).max(axis=(0, 2))
    assert not error[:24].any()
    assert (error[34:] > 0).all()
    (plain,) = pipeline.generate("a", image=image, mask=mask, **FAST)
    assert np.abs(pixels(plain.image) - pixels(image))[:, :24].any()  # as the VAE has it

    drawn.save(tmp_path / "a.png")
    assert read_settings(tmp_path / "a.png").mask_blur == 2
    again = reused(tmp_path / "a.png").with_options({"image": image, "mask": mask})
    (second,) = pipeline.generate(**again)
    np.testing.assert_array_equal(pixels(second.image), pixels(drawn.image))


def test_only_the_masked_part_is_drawn(pipeline: Pipeline, tmp_path: Path) -> None:
    image, mask = noise(200, 150), white((200, 150), (120, 40, 150, 60))
    options: Any = {"image": image, "mask": mask, "padding_mask_crop": 10, **FAST}
    (drawn,) = pipeline.generate("a", **options)
    assert drawn.image.size == (200, 150)
    assert (drawn.settings.width, drawn.settings.height) == (64, 64)
    error = np.abs(pixels(drawn.image) - pixels(image)).max(axis=-1)
    assert (error[40:60, 120:150] > 0).mean() > 0.9
    error[40:60, 120:150] = 0
    assert not error.any()

    *_, last = pipeline.steps("a", **options)
    finished = pipeline.finish(last.latent, drawn.settings, image=image, mask=mask)
    np.testing.assert_array_equal(pixels(finished.image), pixels(drawn.image))
    with pytest.raises(SettingsError, match="got no image"):
        pipeline.finish(last.latent, drawn.settings)
    with pytest.raises(SettingsError, match="that the settings are of, got others"):
        pipeline.finish(last.latent, drawn.settings, image=noise(200, 150, seed=9), mask=mask)
    drawn.save(tmp_path / "a.png")
    assert reused(tmp_path / "a.png").options["padding_mask_crop"] == 10


def test_grown_pictures_fade_into_what_was_there(pipeline: Pipeline) -> None:
    image = noise(48, 64)
    (drawn,) = pipeline.generate("a", image=image, outpaint=(16, 0, 0, 0), mask_blur=0, **FAST)
    np.testing.assert_array_equal(pixels(drawn.image)[:, 16:], pixels(image))
    *_, last = pipeline.steps("a", image=image, outpaint=(16, 0, 0, 0), mask_blur=0, **FAST)
    finished = pipeline.finish(last.latent, drawn.settings, image=image)
    np.testing.assert_array_equal(pixels(finished.image), pixels(drawn.image))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask_blur": 4}, "a mask for mask_blur"),
        ({"image": "IMAGE", "mask_content": "fill"}, "a mask for mask_content"),
        ({"image": "IMAGE", "padding_mask_crop": 0}, "a mask for padding_mask_crop"),
        ({"image": "IMAGE", "mask": "MASK", "mask_blur": -1}, "mask_blur from 0 to 1024"),
        ({"image": "IMAGE", "mask": "MASK", "mask_blur": float("nan")}, "finite mask_blur"),
        ({"image": "IMAGE", "mask": "MASK", "mask_content": "noise"}, "mask_content of original, fill"),
        ({"image": "IMAGE", "mask": "MASK", "padding_mask_crop": -1}, "padding_mask_crop from 0"),
        ({"image": "IMAGE", "mask": "MASK", "padding_mask_crop": 1.5}, "padding_mask_crop from 0"),
        ({"image": "IMAGE", "mask": "BLACK", "padding_mask_crop": 1}, "got a black one"),
    ],
)
def test_nonsense_is_refused(pipeline: Pipeline, options: dict[str, Any], said: str) -> None:
    pictures = {"IMAGE": noise(9, 9), "MASK": Image.new("L", (9, 9), 255), "BLACK": Image.new("L", (9, 9))}
    given = {
        name: pictures.get(value, value) if isinstance(value, str) else value
        for name, value in options.items()
    }
    with pytest.raises(SettingsError, match=said):
        pipeline.settings("a", **given)


def test_settings_of_a_web_ui_with_a_mask(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text(
        "parameters",
        "a\nSteps: 5, Sampler: Euler, Seed: 5, RNG: CPU, Mask blur: 4, Inpaint area: Only masked, "
        "Masked area padding: 32, Masked content: latent noise",
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=chunks)
    found = reused(tmp_path / "a.png")
    assert found.needs == ("mask",)
    options = found.with_options({"mask": "m.png", "image": "i.png"})
    assert (options["mask_blur"], options["padding_mask_crop"], options["mask_content"]) == (
        4.0,
        32,
        "latent_noise",
    )
