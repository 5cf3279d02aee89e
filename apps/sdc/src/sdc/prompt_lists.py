"""Prompts from a file, one a line; and weights in them that nobody reads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

#: More than anyone writes; a file of another kind is noticed before it is read.
MAX_BYTES: Final = 2**20

_WEIGHT = re.compile(r"\([^()]+:\s*[+-]?[.\d]+\s*\)")


def unread_weight(prompts: Iterable[str]) -> str | None:
    """The first ``(words:1.2)`` in plain prompts, which is read word for word there."""
    found = (match for prompt in prompts for match in _WEIGHT.finditer(prompt))
    return next((match.group() for match in found), None)


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        UsageError: none, more than 1 MiB, or no UTF-8.
    """
    if path.stat().st_size > MAX_BYTES:
        raise click.UsageError(f"{path}: expected a list of prompts of at most {MAX_BYTES} bytes, got more")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{path}: expected prompts in UTF-8, got another byte at {error.start}"
        ) from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise click.UsageError(f"{path}: expected a prompt on each line, got none")
    return prompts


def of_several(path: Path, place: int, count: int) -> Path:
    """``cat.png`` of the second of several prompts: ``cat-002.png``."""
    return path if count == 1 else path.with_name(f"{path.stem}-{place:03d}{path.suffix}")
