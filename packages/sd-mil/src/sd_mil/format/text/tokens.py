"""The words of a MIL text, and a position among them."""

from __future__ import annotations

import re
import sys

from sd_mil.errors import PackageError

#: A string ends at its quote or, unterminated, at the end: so that no text is scanned twice.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|->|[()\[\]{}<>,=;]|[^\s()\[\]{}<>,=;"]+', re.DOTALL)
_MARKS = frozenset('()[]{}<>,=;"')
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}

#: Most names are nothing else.
_WORD = re.compile(r"[A-Za-z0-9_.]+")

END = ""


class Tokens:
    """A text as words, strings and marks, read from left to right."""

    __slots__ = ("_position", "_text", "_words")

    def __init__(self, text: str) -> None:
        """Split the text; nothing is judged yet."""
        self._text = text
        self._words: list[str] = _TOKEN.findall(text)
        self._words += [END, END]
        self._position = 0

    def peek(self, ahead: int = 0) -> str:
        """A word that is still to be read; empty at the end."""
        return self._words[min(self._position + ahead, len(self._words) - 1)]

    def next(self) -> str:
        """The next word.

        Raises:
            PackageError: the text has ended.
        """
        word = self._words[self._position]
        if word is END:
            raise self.error("more text")
        self._position += 1
        return word

    def accept(self, word: str) -> bool:
        """Read ``word`` if it is next."""
        if self._words[self._position] == word:
            self._position += 1
            return True
        return False

    def expect(self, *words: str) -> None:
        """Read these words.

        Raises:
            PackageError: something else is next.
        """
        for word in words:
            if self._words[self._position] != word:
                raise self.error(repr(word))
            self._position += 1

    def name(self) -> str:
        """A word that is neither a mark nor a string.

        Raises:
            PackageError: something else is next.
        """
        word = self._words[self._position]
        if word[:1] in _MARKS or word in ("", "->"):
            raise self.error("a name")
        self._position += 1
        return _ESCAPE.sub(_unescaped, word) if "\\" in word else word

    def string(self) -> str:
        """The content of a quoted string.

        Raises:
            PackageError: something else is next.
        """
        word = self.peek()
        if len(word) < 2 or word[0] != '"' or word[-1] != '"':
            raise self.error("a string")
        self._position += 1
        return unquoted(word)

    def skip_brackets(self, opening: str, closing: str) -> None:
        """Read from an opening mark to its closing one, whatever is between.

        Raises:
            PackageError: the text has ended.
        """
        self.expect(opening)
        depth = 1
        while depth:
            word = self.next()
            depth += (word == opening) - (word == closing)

    def error(self, expected: str) -> PackageError:
        """What to raise when the next word is not what was expected."""
        got = self._words[self._position]
        shown = got if len(got) <= 40 else got[:40] + "..."
        found = repr(shown) if got else "the end of the text"
        return PackageError(f"expected {expected}, got {found} in line {self._line()} of the program")

    def _line(self) -> int:
        for index, match in enumerate(_TOKEN.finditer(self._text)):
            if index == self._position:
                return self._text.count("\n", 0, match.start()) + 1
        return self._text.count("\n") + 1


def unquoted(word: str) -> str:
    """A string without its quotes and escapes."""
    inner = word[1:-1]
    return _ESCAPE.sub(_unescaped, inner) if "\\" in inner else inner


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        code = int(escape[1:], 16)
        return chr(code) if code <= sys.maxunicode else match[0]
    return _ESCAPED.get(escape, escape)


def quoted(text: str) -> str:
    """The text as a string literal, on one line of printable characters."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    for letter in "ntr":
        escaped = escaped.replace(_ESCAPED[letter], "\\" + letter)
    if not escaped.isprintable():
        escaped = "".join(char if char.isprintable() else _numbered(char) for char in escaped)
    return f'"{escaped}"'


def escaped_name(text: str) -> str:
    """The name as a word: what would end a word, start a line or command a terminal is escaped."""
    if _WORD.fullmatch(text):
        return text
    return "".join(_numbered(char) if _is_special(char) else char for char in text)


def _is_special(char: str) -> bool:
    return char in _MARKS or char == "\\" or char.isspace() or not char.isprintable()


def _numbered(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"
