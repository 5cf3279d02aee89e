"""The text that AUTOMATIC1111's web UI writes into pictures, read back.

Source: modules/infotext_utils.py there (``parse_generation_parameters``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: ``re_param_code`` there: a name, a colon, and a value that is quoted where it has commas.
_PAIR: Final = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_NEGATIVE: Final = "Negative prompt:"
#: A last line of fewer pairs is a part of the prompt, there.
_FEWEST: Final = 3
#: More text than any picture has; the patterns are quick, yet not on megabytes.
LONGEST: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Infotext:
    """Prompt, negative prompt, and the pairs of the last line, with their names there."""

    prompt: str
    negative_prompt: str
    pairs: Mapping[str, str]


def parse_infotext(text: str) -> Infotext:
    """The parts of ``text``; what is no such text is a prompt without pairs. Cut at :data:`LONGEST`.

    Example:
        >>> parse_infotext("a cat\\nNegative prompt: a dog\\nSteps: 20, Sampler: Euler a, Seed: 7").pairs
        {'Steps': '20', 'Sampler': 'Euler a', 'Seed': '7'}
    """
    *lines, last = text[:LONGEST].strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < _FEWEST:
        lines, pairs = [*lines, last], []
    prompts: tuple[list[str], list[str]] = ([], [])
    is_negative = False
    for line in (line.strip() for line in lines):
        begins = line.startswith(_NEGATIVE)
        is_negative = is_negative or begins
        prompts[is_negative].append(line.removeprefix(_NEGATIVE).strip() if begins else line)
    prompt, negative = ("\n".join(part) for part in prompts)
    return Infotext(prompt, negative, {name: _unquoted(value) for name, value in pairs})


def _unquoted(value: str) -> str:
    """As ``unquote`` there."""
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
