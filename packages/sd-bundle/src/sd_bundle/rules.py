"""Checks that several parts of the manifest share; each raises with a path relative to its own part."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from sd_bundle.errors import Literally, ManifestError

MOST_ELEMENTS: Final = 2**31
LONGEST_TEXT: Final = 4096  # characters of a name


def check_filled(text: str, where: str) -> None:
    """Refuse empty and blank text, and what is too long for a name."""
    if not text.strip():
        raise ManifestError(where, "text", text)
    if len(text) > LONGEST_TEXT:
        raise ManifestError(where, f"at most {LONGEST_TEXT} characters", text)


def check_positive(number: int, where: str) -> None:
    """Refuse sizes below one, and those that no array can have."""
    if not 1 <= number <= MOST_ELEMENTS:
        raise ManifestError(where, "a positive size", number)


def check_elements(shape: Iterable[int], where: str) -> None:
    """Refuse shapes that no array can have, each size of which :func:`check_positive` let pass."""
    sizes = tuple(shape)
    if math.prod(sizes) > MOST_ELEMENTS:
        raise ManifestError(where, f"at most {MOST_ELEMENTS} elements", sizes)


def check_unique(names: Iterable[str], where: str) -> None:
    """Refuse a name that comes twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ManifestError(where, "distinct names", Literally(f"{name!r} twice"))
        seen.add(name)
