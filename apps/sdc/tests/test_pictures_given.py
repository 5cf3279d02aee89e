"""``sdc generate`` with pictures: what it says, and what it refuses in one line."""

import numpy as np
import pytest
from PIL import Image
from sd_runtime import read_settings

PROMPT = "a red circle on a blue background"
FAST = ("--num-inference-steps", 2)


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (200, 150), (30, 60, 200)).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def test_a_picture_is_resized_and_said_so(sdc, converted, tmp_path, photo):
    done = sdc(
        *("generate", PROMPT, "-i", converted, "-o", tmp_path / "x.png"),
        *("--image", photo, "--strength", 0.5, *FAST),
    )
    assert done.status == 0, done.err
    assert "photo.jpg: resized from 200x150 to 128x128 (stretched), the model's size" in done.out
    settings = read_settings(tmp_path / "x.png")
    assert (settings.mode, settings.strength) == ("image-to-image", 0.5)
    assert len(settings.image_sha256) == 64


def test_a_part_is_painted_anew_and_the_rest_is_kept(sdc, converted, tmp_path, photo):
    mask = Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 64, 128))
    mask.save(tmp_path / "mask.png")
    done = sdc(
        *("generate", PROMPT, "-i", converted, "-o", tmp_path / "x.png"),
        *("--image", photo, "--mask", tmp_path / "mask.png", "--num-inference-steps", 4),
    )
    assert done.status == 0, done.err
    assert read_settings(tmp_path / "x.png").mode == "inpainting"
    with Image.open(tmp_path / "x.png") as drawn:
        kept = np.asarray(drawn, float)[:, 72:]
    assert np.abs(kept.mean(axis=(0, 1)) - (30, 60, 200)).max() < 30  # as the VAE has it


def test_the_masked_part_alone_in_a_picture_of_its_own_size(sdc, converted, tmp_path, photo):
    mask = Image.new("L", (200, 150))
    mask.paste(255, (120, 40, 150, 60))
    mask.save(tmp_path / "mask.png")
    done = sdc(
        *("generate", PROMPT, "-i", converted, "-o", tmp_path / "x.png", "--image", photo, *FAST),
        *("--mask", tmp_path / "mask.png", "--padding-mask-crop", 8, "--mask-blur", 1, "--strength", 0.6),
        *("--mask-content", "latent_noise"),
    )
    assert done.status == 0, done.err
    assert "resized" not in done.out
    settings = read_settings(tmp_path / "x.png")
    assert (settings.padding_mask_crop, settings.mask_blur, settings.mask_content) == (8, 1.0, "latent_noise")
    with Image.open(tmp_path / "x.png") as drawn, Image.open(photo) as given:
        error = np.abs(np.asarray(drawn, int) - np.asarray(given, int)).max(axis=-1)
    assert error[42:58, 122:148].mean() > 3
    error[36:64, 116:154] = 0
    assert not error.any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mask", "photo.jpg"), "expected an image to paint a part of"),
        (("--image", "broken.png"), "expected a whole picture"),
        (("--image", "absent.png"), "does not exist"),
        (("--image", "photo.jpg", "--no-resize"), "expected 128x128 pixels with --no-resize, got 200x150"),
        (("--image", "photo.jpg", "--no-resize", "--outpaint", "8,8,8,8"), "--no-resize without --outpaint"),
        (("--image", "photo.jpg", "--strength", 2), "strength above 0 and up to 1"),
        (("--image", "photo.jpg", "--strength", 0.01), "at least one of 2 steps"),
        (("--image", "photo.jpg", "--mask-blur", 2), "expected a mask for mask_blur"),
        (("--strength", 0.5), "an image to start from"),
        (("--original-size", "12by9"), "expected WIDTHxHEIGHT, got '12by9'"),
        (("--original-size", "12x9"), "an SDXL model"),
        (("--crop-top-left", "-1,2"), "expected LEFT,TOP"),
        (("--refiner-start", 0.5), "a refiner for refiner_start"),
        (("--refiner", "absent"), "a bundle folder"),
        (("--guidance-scale", "nan"), "finite guidance_scale"),
    ],
)
def test_what_makes_no_sense_is_one_line(sdc, converted, tmp_path, monkeypatch, photo, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:300])
    done = sdc("generate", PROMPT, "-i", converted, "-o", "x.png", *FAST, *arguments)
    assert done.status != 0
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "x.png").exists()
