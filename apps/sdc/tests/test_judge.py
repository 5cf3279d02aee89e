"""The judge against pictures drawn here, with Pillow alone, in ways the training pictures are not."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from sdc.demo.judge import Verdict, judge

# Not the palette of the training pictures: CSS names that people would use.
CSS = {
    "red": "crimson",
    "green": "forestgreen",
    "blue": "mediumblue",
    "yellow": "gold",
    "purple": "darkviolet",
    "orange": "darkorange",
    "white": "whitesmoke",
    "black": "black",
}
CORNERS = {"square": 4, "triangle": 3}


def drawn(
    colour: str, shape: str, background: str, *, turn: float = 0.0, size: int = 128, radius: float = 0.3
):
    scale = 4
    side, reach = size * scale, radius * size * scale
    picture = Image.new("RGB", (side, side), CSS[background])
    pen = ImageDraw.Draw(picture)
    x = y = side / 2
    if shape == "circle":
        pen.ellipse([x - reach, y - reach, x + reach, y + reach], fill=CSS[colour])
    elif shape == "star":
        corners = [
            (x + r * math.sin(math.pi * k / 5 + turn), y - r * math.cos(math.pi * k / 5 + turn))
            for k, r in enumerate([reach * 1.2, reach * 0.5] * 5)
        ]
        pen.polygon(corners, fill=CSS[colour])
    else:
        pen.regular_polygon(
            (x, y, reach * 1.2), CORNERS[shape], rotation=math.degrees(turn), fill=CSS[colour]
        )
    return picture.resize((size, size), Image.Resampling.BOX)


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star"])
@pytest.mark.parametrize("colour", list(CSS))
def test_names_what_was_drawn(colour, shape):
    for background in CSS:
        if background != colour:
            assert judge(drawn(colour, shape, background)) == Verdict(colour, shape, background)


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star"])
@pytest.mark.parametrize("turn", [0.1, 0.4, 0.7])
@pytest.mark.parametrize(("size", "radius"), [(128, 0.22), (256, 0.3), (96, 0.35)])
def test_place_size_and_rotation_do_not_matter(shape, turn, size, radius):
    picture = drawn("blue", shape, "white", turn=turn, size=size, radius=radius)
    assert judge(picture) == Verdict("blue", shape, "white")


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "star"])
def test_blur_and_noise_are_forgiven(shape):
    blurred = drawn("yellow", shape, "purple").filter(ImageFilter.GaussianBlur(1))
    noise = np.random.default_rng(0).normal(0, 8, (128, 128, 3))
    noisy = Image.fromarray((np.asarray(blurred) + noise).clip(0, 255).astype(np.uint8))
    assert judge(noisy) == Verdict("yellow", shape, "purple")


@pytest.mark.parametrize("rounding", [2, 5, 8, 12])
def test_a_triangle_with_round_corners_is_a_triangle(rounding):
    picture = Image.new("RGB", (128, 128), "white")
    pen = ImageDraw.Draw(picture)
    corners = [(64, 34), (30, 92), (98, 92)]
    pen.polygon(corners, fill="red")
    pen.line([*corners, *corners[:2]], fill="red", width=2 * rounding)
    for x, y in corners:
        pen.circle((x, y), rounding, fill="red")
    assert judge(picture) == Verdict("red", "triangle", "white")


def test_what_is_not_clear_is_not_named():
    plain = Image.new("RGB", (128, 128), "red")
    assert judge(plain) == Verdict(None, None, "red")
    washed_out = Image.new("RGB", (128, 128), (200, 150, 150))
    assert judge(washed_out).background is None
    blob = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(blob).polygon(
        [(20, 20), (110, 20), (110, 50), (50, 50), (50, 110), (20, 110)], fill="black"
    )
    assert judge(blob) == Verdict("black", None, "white")


def test_only_the_largest_region_counts():
    picture = drawn("green", "square", "white")
    ImageDraw.Draw(picture).ellipse([2, 2, 9, 9], fill="red")
    assert judge(picture) == Verdict("green", "square", "white")
