"""A contact sheet: pictures in rows, each with its caption, ticked or crossed by the judge."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from sdc.demo.captions import Caption
from sdc.demo.judge import Verdict

_MARGIN, _CAPTION_HEIGHT, _FONT_SIZE = 10, 42, 12
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


def contact_sheet(exhibits: Sequence[Exhibit], *, columns: int = 6) -> Image.Image:
    """All exhibits on one page; a caption that training never showed is marked ``(new)``."""
    width, height = exhibits[0].image.size
    step_x, step_y = width + _MARGIN, height + _CAPTION_HEIGHT + _MARGIN
    rows = -(-len(exhibits) // columns)
    sheet = Image.new("RGB", (columns * step_x + _MARGIN, rows * step_y + _MARGIN), _PAPER)
    for index, exhibit in enumerate(exhibits):
        row, column = divmod(index, columns)
        _hang(sheet, exhibit, (_MARGIN + column * step_x, _MARGIN + row * step_y))
    return sheet


def _hang(sheet: Image.Image, exhibit: Exhibit, place: tuple[int, int]) -> None:
    x, y = place
    width, height = exhibit.image.size
    sheet.paste(exhibit.image, place)
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((x - 1, y - 1, x + width, y + height), outline=_RIGHT if exhibit.right else _WRONG)
    text = str(exhibit.caption) + ("" if exhibit.seen else " (new)")
    font = ImageFont.load_default(_FONT_SIZE)
    characters = max(8, int(width / (_FONT_SIZE * 0.53)))
    pen.multiline_text((x, y + height + 3), textwrap.fill(text, characters), fill=_INK, font=font, spacing=1)
