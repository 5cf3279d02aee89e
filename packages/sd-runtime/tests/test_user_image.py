"""Pictures that users give: any size, turned by EXIF, see-through, damaged, hostile."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sd_bundle import ImageSize
from sd_runtime import UserImageError, read_image
from sd_runtime.user_image import prepare_image, prepare_mask

SIZE = ImageSize(height=16, width=24)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8))


def test_a_picture_of_the_models_size_keeps_its_pixels() -> None:
    picture = noise(24, 16)
    prepared = prepare_image(picture, SIZE)
    np.testing.assert_array_equal(prepared.pixels, np.asarray(picture))
    signed = prepared.signed()
    assert (signed.shape, signed.dtype) == ((1, 3, 16, 24), np.float32)
    np.testing.assert_allclose(signed[0, :, 5, 7], np.asarray(picture)[5, 7] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("size", [(50, 40), (7, 90), (1, 1), (24, 17)])
def test_other_sizes_are_resized_as_diffusers_does(size: tuple[int, int]) -> None:
    processors = pytest.importorskip("diffusers.image_processor")
    picture = noise(*size)
    prepared = prepare_image(picture, SIZE)
    expected = processors.VaeImageProcessor().preprocess(picture, height=16, width=24).numpy()
    np.testing.assert_allclose(prepared.signed(), expected, atol=1e-6)
    assert prepared.original == size


def test_a_mask_is_binarised_as_diffusers_does() -> None:
    processors = pytest.importorskip("diffusers.image_processor")
    picture = noise(50, 40)
    processor = processors.VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    expected = processor.preprocess(picture, height=16, width=24).numpy()
    np.testing.assert_array_equal(prepare_mask(picture, SIZE).repainted(), expected)


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    picture = noise(16, 24)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn
    picture.save(tmp_path / "turned.png", exif=exif)
    read = read_image(tmp_path / "turned.png")
    assert read.size == (24, 16)
    np.testing.assert_array_equal(np.asarray(read), np.rot90(np.asarray(picture), -1))


def test_clear_parts_turn_white_and_keep_the_picture_under_a_mask() -> None:
    layer = Image.new("RGBA", (24, 16), (200, 10, 10, 0))
    layer.paste((0, 0, 255, 255), (0, 0, 12, 16))
    pixels = prepare_image(layer, SIZE).pixels
    assert pixels[0, 0].tolist() == [0, 0, 255]
    assert pixels[0, 20].tolist() == [255, 255, 255]
    clear = Image.new("LA", (24, 16), (255, 0))
    assert prepare_mask(clear, SIZE).repainted().max() == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert prepare_image(noise(24, 16).convert(mode), SIZE).pixels.shape == (16, 24, 3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 24 * 16).reshape(16, 24)
    pixels = prepare_image(Image.fromarray(ramp.astype(np.uint16)), SIZE).pixels
    np.testing.assert_allclose(pixels[..., 0], ramp / 257, atol=1)


def test_the_digest_tells_pictures_apart() -> None:
    one, two = noise(24, 16), noise(24, 16)
    two.putpixel((3, 3), (1, 2, 3))
    digests = {prepare_image(picture, SIZE).sha256 for picture in (one, two, one)}
    assert len(digests) == 2


def truncated(path: Path) -> None:
    noise(64, 64).save(path)
    path.write_bytes(path.read_bytes()[:-4000])


def a_bomb(path: Path) -> None:
    """A PNG of two billion pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 40_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def a_large_one(path: Path) -> None:
    """Between Pillow's warning and its error."""
    a_bomb(path)
    header = struct.pack(">IIBBBBB", 12_000, 10_000, 8, 2, 0, 0, 0)
    content = path.read_bytes()
    path.write_bytes(content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (truncated, "a whole picture"),
        (a_bomb, "pixels, got a larger one"),
        (a_large_one, "pixels, got a larger one"),
        (lambda path: path.write_bytes(b""), "a whole picture"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 100), "a whole picture"),
        (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "a whole picture"),
        (lambda path: path.mkdir(), "a whole picture"),
        (lambda _: None, "a whole picture"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "picture.png"
    write(path)
    with pytest.raises(UserImageError) as caught:
        read_image(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("image", [np.zeros((16, 24, 3), np.uint8), b"picture.png", 3])
def test_what_is_neither_a_picture_nor_a_file_is_refused(image: Any) -> None:
    with pytest.raises(UserImageError, match=f"expected a PIL image or a file, got {type(image).__name__}"):
        prepare_image(image, SIZE)


@pytest.mark.parametrize(
    ("numbers", "mode"),
    [
        (np.tile(np.arange(24, dtype=np.int32) * 10, (16, 1)), "I"),
        (np.tile(np.arange(24, dtype=np.float32) * 10, (16, 1)), "F"),
    ],
)
def test_numbers_up_to_255_are_what_pillow_makes_of_them(numbers: Any, mode: str) -> None:
    picture = Image.fromarray(numbers)
    assert picture.mode == mode
    expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(prepare_image(picture, SIZE).pixels, expected)


def test_floats_do_not_get_brighter_by_what_else_is_in_the_picture() -> None:
    """A pixel keeps its value, whatever the largest one is."""
    found = []
    for largest in (0.5, 1.0):
        numbers = np.full((16, 24), 0.25, np.float32)
        numbers[0, 0] = largest
        found.append(prepare_image(Image.fromarray(numbers), SIZE).pixels[8, 8, 0])
    assert found == [64, 64]


@pytest.mark.parametrize("largest", [256, 70000])
def test_numbers_of_an_unknown_range_are_refused(largest: int) -> None:
    numbers = np.zeros((16, 24), np.int32)
    numbers[3, 3] = largest
    with pytest.raises(UserImageError, match="what is white"):
        prepare_image(Image.fromarray(numbers), SIZE)


def test_clear_parts_of_tall_pictures() -> None:
    """Laid on white strip by strip, as in one go."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (600, 40, 4), np.uint8), "RGBA")
    whole = Image.new("RGBA", picture.size, "white")
    whole.alpha_composite(picture)
    size = ImageSize(height=600, width=40)
    np.testing.assert_array_equal(prepare_image(picture, size).pixels, np.asarray(whole.convert("RGB")))
