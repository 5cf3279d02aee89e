"""Sizes of pictures as people write them: the width first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sd_bundle import ImageSize


def image_size(text: str) -> ImageSize:
    """``512x768``: 512 pixels wide, 768 high.

    Raises:
        click.UsageError: something else.
    """
    from sd_bundle import BundleError, ImageSize

    width, cross, height = text.partition("x")
    is_pair = cross and all(one.isascii() and one.isdigit() and int(one) for one in (width, height))
    if not is_pair:
        raise click.UsageError(f"--size: expected WIDTHxHEIGHT such as 512x768, got {text!r}")
    try:
        return ImageSize(height=int(height), width=int(width))
    except BundleError as error:
        raise click.UsageError(f"--size {text}: {error}") from error
