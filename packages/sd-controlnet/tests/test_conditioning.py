"""Conditioning is what diffusers' control image processor makes of the same image."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image
from sd_controlnet import ControlNetError, prepare_conditioning


def gradient(width: int, height: int) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * rows / height, 255 * columns / width, 255 * (rows + columns < height)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def test_width_and_height_keep_their_places() -> None:
    image = Image.new("RGB", (40, 20))
    image.paste((255, 0, 0), (20, 0, 40, 20))  # the right half is red
    condition = prepare_conditioning(image, height=8, width=32)
    assert condition.shape == (1, 3, 8, 32)
    assert condition.dtype == np.float32
    assert condition[0, 0, :, :12].max() == 0.0
    assert condition[0, 0, :, 20:].min() == 1.0
    assert condition[0, 1:].max() == 0.0


def test_same_size_is_left_alone() -> None:
    image = gradient(24, 16)
    condition = prepare_conditioning(image, height=16, width=24)
    np.testing.assert_array_equal(condition[0] * 255, np.asarray(image, dtype=np.float32).transpose(2, 0, 1))


def test_the_image_is_not_changed() -> None:
    image = gradient(24, 16)
    before = image.tobytes()
    prepare_conditioning(image, height=8, width=8)[:] = 0
    assert image.tobytes() == before


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (48, 80), (80, 48)])
def test_like_diffusers(mode: str, width: int, height: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processors = pytest.importorskip("diffusers.image_processor")
    processor = processors.VaeImageProcessor(do_convert_rgb=True, do_normalize=False)
    source = gradient(100, 60)
    image = source.convert(mode)
    expected = processor.preprocess(image, height=height, width=width).numpy()
    np.testing.assert_array_equal(prepare_conditioning(image, height=height, width=width), expected)


def test_a_file_of_any_kind() -> None:
    stored = io.BytesIO()
    gradient(50, 30).save(stored, format="JPEG")
    with Image.open(stored) as image:
        condition = prepare_conditioning(image, height=64, width=64)
    assert 0 <= condition.min() < 0.1 < 0.9 < condition.max() <= 1


@pytest.mark.parametrize(("height", "width"), [(0, 8), (8, 0), (-8, 8)])
def test_sizes_that_are_none(height: int, width: int) -> None:
    with pytest.raises(ControlNetError, match="at least 1 pixel"):
        prepare_conditioning(gradient(8, 8), height=height, width=width)
