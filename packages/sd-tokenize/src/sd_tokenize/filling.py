"""Weighted tokens into windows, as the web UI fills them.

Source: AUTOMATIC1111/stable-diffusion-webui, modules/sd_hijack_clip.py (``tokenize_line``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sd_tokenize.errors import TokenizerError

#: Up to so many tokens move to the next window with the words that they belong to, back to a comma; the web
#: UI's default (``comma_padding_backtrack``).
BACKTRACK = 20


@dataclass(frozen=True, slots=True)
class Weighted:
    """A token, what it counts, and in which part of the prompt and where in its text it begins."""

    id: int
    weight: float
    part: int
    start: int


@dataclass(slots=True)
class _Windows:
    """The windows so far; ``comma`` is where in the last one the last comma ends, None if there is none."""

    full: list[list[Weighted]] = field(default_factory=list)
    last: list[Weighted] = field(default_factory=list)
    comma: int | None = None

    def close(self, moved: int = 0) -> None:
        """Begin a new window with the last ``moved`` tokens of this one."""
        kept = len(self.last) - moved
        self.full.append(self.last[:kept])
        self.last, self.comma = self.last[kept:], None

    def moving(self, room: int) -> int:
        """How many tokens of a full window belong to what follows its last comma, if they are few."""
        behind = room - (room if self.comma is None else self.comma)
        return behind if 0 < behind < BACKTRACK else 0


def fill(
    tokens: Sequence[Weighted], breaks: Sequence[int], *, room: int, count: int, comma: int | None
) -> tuple[list[list[Weighted]], Weighted | None]:
    """``tokens`` in ``count`` windows of up to ``room``, and the first one that found no place.

    A window begins before the first token of each part in ``breaks``; where one ends within words, these move
    to the next whole, back to the last ``comma``.

    Raises:
        TokenizerError: more windows are asked for by ``breaks`` than there are.
    """
    windows, pending = _Windows(), list(breaks)
    for token in tokens:
        while pending and pending[0] <= token.part:
            pending.pop(0)
            windows.close()
            _check_count(len(windows.full) + 1, count)
        if token.id == comma:
            windows.comma = len(windows.last) + 1
        if len(windows.last) == room:
            if len(windows.full) + 1 == count:
                return [*windows.full, windows.last], token
            windows.close(windows.moving(room))
        windows.last.append(token)
    filled = [*windows.full, windows.last]
    _check_count(len(filled) - 1 + len(pending), count)
    return [*filled, *([[]] * (count - len(filled)))], None


def _check_count(needed: int, count: int) -> None:
    if needed > count:
        raise TokenizerError(
            f"expected a prompt for {count} window(s) of the text encoder, got BREAK before window {needed}: "
            "take it out, or convert the model with a longer text-token-sequence-length"
        )
