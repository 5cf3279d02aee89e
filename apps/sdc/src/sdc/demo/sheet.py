"""A contact sheet: pictures in rows, each with its caption, ticked or crossed by the judge."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from sdc.demo.captions import Caption
from sdc.demo.conditioned import Conditioned
from sdc.demo.judge import Verdict

_MARGIN, _CAPTION_HEIGHT, _FONT_SIZE = 10, 42, 12
_OVERLAP = 0.7  # of a shape with its edge map, from which on it counts as obeyed
_PAPER, _INK, _RIGHT, _WRONG = "white", "#222222", "#1a7f37", "#cf222e"


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A picture, the caption it was drawn from, and what the judge saw."""

    caption: Caption
    image: Image.Image
    verdict: Verdict
    seen: bool

    @property
    def right(self) -> bool:
        """Whether colour, shape and background are the caption's."""
        wanted = (self.caption.colour, self.caption.shape, self.caption.background)
        return (self.verdict.colour, self.verdict.shape, self.verdict.background) == wanted


def accuracy(exhibits: Sequence[Exhibit]) -> float:
    """The share of pictures that show what was asked for, 0..1."""
    return sum(exhibit.right for exhibit in exhibits) / len(exhibits)


@dataclass(frozen=True, slots=True)
class _Frame:
    image: Image.Image
    text: str
    right: bool


def contact_sheet(
    exhibits: Sequence[Exhibit], conditioned: Sequence[Conditioned] = (), *, columns: int = 6
) -> Image.Image:
    """All exhibits on one page; a caption that training never showed is marked ``(new)``.

    Below them, each edge map left of the picture that it steered, with the overlap of the two.
    """
    frames: list[_Frame | None] = [
        _Frame(one.image, str(one.caption) + ("" if one.seen else " (new)"), one.right) for one in exhibits
    ]
    frames += [None] * (-len(frames) % columns if conditioned else 0)
    for steered in conditioned:
        right = steered.overlap >= _OVERLAP
        frames.append(_Frame(steered.wanted.hint, "edge map", right))
        frames.append(
            _Frame(steered.image, f"{steered.wanted.caption}, {steered.overlap:.0%} overlap", right)
        )
    width, height = exhibits[0].image.size
    step_x, step_y = width + _MARGIN, height + _CAPTION_HEIGHT + _MARGIN
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * step_x + _MARGIN, rows * step_y + _MARGIN), _PAPER)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        if frame is not None:
            _hang(sheet, frame, (_MARGIN + column * step_x, _MARGIN + row * step_y))
    return sheet


def _hang(sheet: Image.Image, frame: _Frame, place: tuple[int, int]) -> None:
    x, y = place
    width, height = frame.image.size
    sheet.paste(frame.image, place)
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((x - 1, y - 1, x + width, y + height), outline=_RIGHT if frame.right else _WRONG)
    font = ImageFont.load_default(_FONT_SIZE)
    characters = max(8, int(width / (_FONT_SIZE * 0.53)))
    pen.multiline_text(
        (x, y + height + 3), textwrap.fill(frame.text, characters), fill=_INK, font=font, spacing=1
    )
