"""``sdc generate`` with pictures: what it says, and what it refuses in one line."""

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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mask", "photo.jpg"), "its UNet takes 9 channels"),
        (("--image", "photo.jpg", "--mask", "photo.jpg"), "convert an inpainting checkpoint"),
        (("--image", "broken.png"), "expected a whole picture"),
        (("--image", "absent.png"), "does not exist"),
        (("--image", "photo.jpg", "--strength", 2), "strength above 0 and up to 1"),
        (("--image", "photo.jpg", "--strength", 0.01), "at least one of 2 steps"),
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
