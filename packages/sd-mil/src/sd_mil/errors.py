"""What can go wrong when a package is read or run.

SdMilError
├── PackageError          the file is malformed, truncated, or contradicts itself
├── UnsupportedModelError the file is well-formed, but of a kind this package does not run
│   └── UnsupportedOpError  ... because of one operation: its name, type and output are said
├── EngineError           the engine asked for does not exist, or cannot do what is asked on this machine
│   └── MissingEngineError  ... because its library is not installed (an ImportError, too)
├── PredictionError       the arrays given to ``predict`` do not fit the model's ports
├── MetadataError         text of a model's metadata that it does not have (a KeyError, too), or no text
├── LintError             no such device, system or rule
└── ComparisonError       outputs that cannot be compared, or that have no counterpart

What a message quotes of a file may be anything: every message is one line of printable characters, and
not long.
"""

from __future__ import annotations

#: Of a message's characters, how many stay at its beginning and at its end.
_BEGINNING, _END = 1200, 300


#: What Python and libraries raise for programs that contradict themselves; typed where it is caught.
FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class SdMilError(ValueError):
    """Base of every error that sd-mil raises on bad input."""

    def __init__(self, message: str = "") -> None:
        """Line breaks become spaces, other control characters escapes; the middle of a long text goes."""
        super().__init__(_shortened(printable(" ".join(message.split("\n")))))


def _shortened(text: str) -> str:
    if len(text) <= _BEGINNING + _END:
        return text
    return f"{text[:_BEGINNING]} … {text[-_END:]}"


def printable(text: str) -> str:
    r"""A name of a file, as it can be printed: ``\n``, ``\x1b`` and ``\u202e`` for what would be obeyed."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class PackageError(SdMilError):
    """The file is malformed: expected, got, where."""


class UnsupportedModelError(SdMilError):
    """A well-formed model that cannot be run here."""


class UnsupportedOpError(UnsupportedModelError):
    """An operation that the engine does not know, found at load."""


class EngineError(SdMilError):
    """No such engine, precision or rounding, or the processor lacks the arithmetic asked for."""


class MissingEngineError(EngineError, ImportError):
    """The engine's library is not installed; the message has the command that installs it."""


def load_error(library: str, error: BaseException) -> EngineError:
    """For what a library that is installed raises while it loads: it does not find a part of its own, say."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return EngineError(f"expected {library} to load, got: {reason}; is its installation complete?")


class PredictionError(SdMilError):
    """Wrong input name, shape or dtype."""


class ComparisonError(SdMilError):
    """Outputs of two models that cannot be held against each other."""


class MetadataError(SdMilError, KeyError):
    """No such input, output or metadata, or something else than a text for it."""

    __str__ = Exception.__str__  # KeyError quotes it


class LintError(SdMilError):
    """A device, a system or a set of rules that does not exist."""
