"""All pictures of a command in one: a row for each prompt, a column for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_runtime import ImageSize


def check_sheet(rows: int, columns: int, size: ImageSize, scale: float) -> None:
    """Before the pictures are drawn: what has more pixels is what programs refuse to open.

    Raises:
        UsageError: too many pictures, of ``size`` times ``scale``.
    """
    from PIL.Image import MAX_IMAGE_PIXELS

    pixels = rows * columns * int(size.width * scale) * int(size.height * scale)
    if MAX_IMAGE_PIXELS is not None and pixels > MAX_IMAGE_PIXELS:
        raise click.UsageError(
            f"expected at most {MAX_IMAGE_PIXELS} pixels in a --grid, got {pixels}: {rows} x {columns}"
        )


def save_sheet(images: Sequence[Image], columns: int, path: Path) -> None:
    """Write ``images`` row by row, each in a cell of the largest one's size; PNG, JPEG or WebP."""
    from PIL import Image as Pillow
    from sd_bundle.drafts import replacing
    from sd_runtime import format_of

    width, height = max(one.width for one in images), max(one.height for one in images)
    rows = -(-len(images) // columns)
    sheet = Pillow.new("RGB", (columns * width, rows * height), "white")
    for place, image in enumerate(images):
        sheet.paste(image, (place % columns * width, place // columns * height))
    with replacing(path) as draft:
        sheet.save(draft, format=format_of(path))
