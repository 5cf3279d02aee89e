"""What can go wrong when a tokenizer is read or used.

TokenizerError    a tokenizer file is missing, malformed or contradicts another: expected, got, where

What a message quotes of a file may be anything: every message is one line of printable characters, and
not long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class TokenizerError(ValueError):
    """A tokenizer that cannot be built from the files given."""

    def __init__(self, message: str = "") -> None:
        """Line breaks become spaces, other control characters escapes; the middle of a long text goes."""
        super().__init__(_shortened(_printable(message)))


#: Of a message's characters, how many stay at its beginning and at its end.
_BEGINNING, _END = 600, 200


def _shortened(text: str) -> str:
    if len(text) <= _BEGINNING + _END:
        return text
    return f"{text[:_BEGINNING]} … {text[-_END:]}"


def _printable(text: str) -> str:
    line = " ".join(text.split("\n"))
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


@contextmanager
def loading() -> Iterator[None]:
    """A block that imports the library tokenizers, which may be there and still not load.

    Raises:
        TokenizerError: it does not.
    """
    try:
        yield
    except ImportError as error:
        raise TokenizerError(
            f"expected the library tokenizers to load, got: {error}; pip install tokenizers"
        ) from error
