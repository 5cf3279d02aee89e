"""Hints of pictures whose edges, colours and labels are known; filters against scipy's and Pillow's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sd_controlnet import HINTS, HintError, make_hint

pytest.importorskip("cv2")

SIZE = (96, 64)  # width, height


def drawing(line: int = 1, fill: str = "red") -> Image.Image:
    """A disc with a black outline on white."""
    image = Image.new("RGB", SIZE, "white")
    ImageDraw.Draw(image).ellipse((22, 12, 72, 52), fill=fill, outline="black", width=line)
    return image


def photo() -> Image.Image:
    pixels = np.random.default_rng(0).random((8, 12, 3))
    return Image.fromarray(np.uint8(pixels * 255)).resize(SIZE, Image.Resampling.BICUBIC)


def outline(width: int) -> np.ndarray:
    ring = Image.new("L", SIZE)
    ImageDraw.Draw(ring).ellipse((22, 12, 72, 52), outline=255, width=width)
    return np.asarray(ring) > 0


def near(ring: np.ndarray) -> np.ndarray:
    ndimage = pytest.importorskip("scipy.ndimage")
    return ndimage.binary_dilation(ring, iterations=3)


@pytest.mark.parametrize("kind", ["canny", "softedge", "lineart", "scribble"])
def test_lines_are_where_the_outline_is(kind: str) -> None:
    found = np.asarray(make_hint(drawing(line=2, fill="white"), kind))[..., 0]
    ring = outline(2)
    assert found.shape == (64, 96)
    assert (found[~near(ring)] > 64).mean() == 0
    ndimage = pytest.importorskip("scipy.ndimage")
    assert ndimage.binary_dilation(found > 64, iterations=2)[ring].mean() > 0.95


@pytest.mark.parametrize("kind", [kind for kind in HINTS if kind not in ("segmentation", "inpaint")])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_any_mode(kind: str, mode: str) -> None:
    image = photo().convert("L").convert("I").convert("I;16") if mode == "I;16" else photo().convert(mode)
    hint = make_hint(image, kind)
    assert (hint.mode, hint.size) == ("RGB", SIZE)


def test_a_flat_picture_has_no_edges() -> None:
    flat = Image.new("RGB", SIZE, (90, 140, 30))
    for kind in ("canny", "softedge", "lineart", "scribble"):
        assert not np.asarray(make_hint(flat, kind)).any()


def test_thresholds_of_canny() -> None:
    few, many = (np.asarray(make_hint(photo(), "canny", low=low, high=2 * low)) > 0 for low in (150.0, 20.0))
    assert 0 <= few.sum() < many.sum()


def test_grey_blur_tile_and_palette() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    image, pixels = photo(), np.asarray(photo(), np.float64)
    grey = np.asarray(make_hint(image, "grey"), np.float64)
    assert np.abs(grey[..., 0] - np.asarray(image.convert("L"), np.float64)).max() <= 1
    blurred = np.asarray(make_hint(image, "blur", sigma=4), np.float64)
    expected = ndimage.gaussian_filter(pixels, (4, 4, 0), mode="mirror", truncate=8)
    assert np.abs(blurred - expected).max() <= 3
    tile = np.asarray(make_hint(image, "tile", factor=4), np.float64)
    small = pixels.reshape(16, 4, 24, 4, 3).mean((1, 3))
    assert np.abs(tile.reshape(16, 4, 24, 4, 3).mean((1, 3)) - small).mean() < 4
    palette = np.asarray(make_hint(image, "palette", factor=16)).reshape(4, 16, 6, 16, 3)
    assert (palette == palette[:, :1, :, :1]).all()
    assert len(np.unique(palette.reshape(-1, 3), axis=0)) > 4


def test_labels_become_the_colours_of_their_classes() -> None:
    labels = np.zeros((4, 6), np.uint8)
    labels[1], labels[2], labels[3] = 2, 12, 149  # wall, sky, person, flag
    colours = np.asarray(make_hint(Image.fromarray(labels), "segmentation"))
    expected = [[120, 120, 120], [6, 230, 230], [150, 5, 61], [92, 0, 255]]
    np.testing.assert_array_equal(colours[:, 0], expected)
    with pytest.raises(HintError, match="labels from 0 to 149, ADE20K's classes, got 150"):
        make_hint(Image.fromarray(labels + 1), "segmentation")
    with pytest.raises(HintError, match=r"one channel .* got one of mode RGB"):
        make_hint(photo(), "segmentation")


def test_what_is_to_be_painted_anew_is_minus_one() -> None:
    mask = Image.new("L", SIZE)
    mask.paste(255, (48, 0, 96, 64))
    hint = make_hint(photo(), "inpaint", mask=mask)
    assert isinstance(hint, np.ndarray)
    assert (hint.shape, hint.dtype) == ((1, 3, 64, 96), np.float32)
    assert (hint[..., 48:] == -1).all()
    np.testing.assert_array_equal(hint[0, :, :, :48] * 255, np.asarray(photo()).transpose(2, 0, 1)[:, :, :48])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "depth"}, "a kind of hint of canny, .* got 'depth'"),
        ({"kind": "inpaint"}, "a mask for the hint 'inpaint'"),
        ({"kind": "canny", "mask": Image.new("L", SIZE)}, "a mask for 'inpaint' alone"),
        ({"kind": "canny", "sigma": 2.0}, r"options of 'canny' \(low=100, high=200\), got 'sigma'"),
        ({"kind": "blur", "sigma": -1.0}, "above 0 for sigma of 'blur', got -1"),
        ({"kind": "blur", "sigma": float("nan")}, "above 0 for sigma of 'blur', got nan"),
    ],
)
def test_what_is_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(HintError, match=said):
        make_hint(photo(), **arguments)  # type: ignore[arg-type]
