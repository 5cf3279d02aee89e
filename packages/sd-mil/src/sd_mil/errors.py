"""What can go wrong when a package is read or run.

SdMilError
├── PackageError          the file is malformed, truncated, or contradicts itself
├── UnsupportedModelError the file is well-formed, but of a kind this package does not run
│   └── UnsupportedOpError  ... because of one operation: its name, type and output are said
├── EngineError           the engine asked for does not exist, or cannot do what is asked on this machine
│   └── MissingEngineError  ... because its library is not installed (an ImportError, too)
├── PredictionError       the arrays given to ``predict`` do not fit the model's ports
└── ComparisonError       two arrays that cannot be compared
"""

from __future__ import annotations


class SdMilError(ValueError):
    """Base of every error that sd-mil raises on bad input."""


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


class PredictionError(SdMilError):
    """Wrong input name, shape or dtype."""


class ComparisonError(SdMilError):
    """Arrays of different shapes."""
