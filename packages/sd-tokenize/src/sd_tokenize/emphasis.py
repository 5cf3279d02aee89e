"""The web UI's prompt syntax: which words count more, which less, and where a new window begins.

Source: AUTOMATIC1111/stable-diffusion-webui, modules/prompt_parser.py (``parse_prompt_attention``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sd_tokenize.errors import TokenizerError

#: What a round bracket multiplies by; a square one divides.
ROUND = 1.1
SQUARE = 1 / ROUND

#: An escape, a bracket, the end of a bracket with its weight, or a run of anything else.
_MARKS = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass(frozen=True, slots=True)
class Part:
    """Words of a prompt and what they count, 1 by default; with ``breaks``, a new window begins before."""

    text: str
    weight: float = 1.0
    breaks: bool = False


def parse_emphasis(text: str) -> list[Part]:
    r"""``text`` in the web UI's syntax, at least one part; brackets that are never closed count to the end.

    ``(word)`` counts 1.1 times, ``[word]`` 1.1 times less, ``(word:1.3)`` 1.3 times, and all of them nest.
    ``\(``, ``\)``, ``\[``, ``\]`` and ``\\`` are the characters themselves; ``BREAK`` begins a new window.

    Example:
        >>> parse_emphasis(r"a (cat:1.5) \(sitting\)")
        [Part(text='a ', weight=1.0, breaks=False), Part(text='cat', weight=1.5, breaks=False), \
Part(text=' (sitting)', weight=1.0, breaks=False)]

    Raises:
        TokenizerError: a weight that is no number.
    """
    parts: list[Part] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for mark in _MARKS.finditer(text):
        word, weight = mark.group(0), mark.group(1)
        if word in opened:
            opened[word].append(len(parts))
        elif weight is not None and opened["("]:
            _multiply(parts, opened["("].pop(), _number(weight))
        elif word == ")" and opened["("]:
            _multiply(parts, opened["("].pop(), ROUND)
        elif word == "]" and opened["["]:
            _multiply(parts, opened["["].pop(), SQUARE)
        elif word.startswith("\\"):
            parts.append(Part(word[1:]))
        else:
            parts += _broken(word)
    for bracket, factor in (("(", ROUND), ("[", SQUARE)):
        for start in opened[bracket]:
            _multiply(parts, start, factor)
    return list(_merged(parts)) or [Part("")]


def _multiply(parts: list[Part], start: int, factor: float) -> None:
    parts[start:] = [replace(part, weight=part.weight * factor) for part in parts[start:]]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise TokenizerError(f"expected a number as the weight in (words:weight), got {text!r}")
    return number


def _broken(text: str) -> list[Part]:
    return [Part(words, breaks=place > 0) for place, words in enumerate(_BREAK.split(text))]


def _merged(parts: list[Part]) -> Iterator[Part]:
    """Neighbours of the same weight are tokenized as one."""
    last: Part | None = None
    for part in parts:
        if last is not None and last.weight == part.weight and not part.breaks:
            last = replace(last, text=last.text + part.text)
            continue
        if last is not None:
            yield last
        last = part
    if last is not None:
        yield last
