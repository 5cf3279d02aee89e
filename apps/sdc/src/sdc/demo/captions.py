"""The small world of the demo checkpoint: what a caption can say, and which captions it never saw.

A caption is ``a {colour} {shape} on a {colour} background``; shape and background differ in colour.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 20, 30),
    "green": (20, 150, 50),
    "blue": (30, 60, 220),
    "yellow": (250, 225, 30),
    "purple": (130, 30, 150),
    "orange": (250, 140, 20),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}
SHAPES = ("circle", "square", "triangle", "star")

UNSEEN_FRACTION = 0.1
_SPLIT_SEED = 20_24


@dataclass(frozen=True, order=True)
class Caption:
    """One combination: colour and shape in front, colour of the background."""

    colour: str
    shape: str
    background: str

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape} on a {self.background} background"


def every_caption() -> tuple[Caption, ...]:
    """All 224 combinations, in a fixed order."""
    return tuple(
        Caption(colour, shape, background)
        for colour, shape, background in itertools.product(COLOURS, SHAPES, COLOURS)
        if colour != background
    )


def unseen_captions() -> tuple[Caption, ...]:
    """The tenth of the combinations that training leaves out, the same on every machine."""
    captions = every_caption()
    count = round(UNSEEN_FRACTION * len(captions))
    chosen = random.Random(_SPLIT_SEED).sample(captions, count)  # noqa: S311 - a split, not a secret
    return tuple(sorted(chosen))


def seen_captions() -> tuple[Caption, ...]:
    """The combinations that training shows."""
    unseen = set(unseen_captions())
    return tuple(caption for caption in every_caption() if caption not in unseen)
