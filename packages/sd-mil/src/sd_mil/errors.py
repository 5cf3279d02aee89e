"""What can go wrong when a package is read or run.

SdMilError
├── PackageError          the file is malformed, truncated, or contradicts itself
├── UnsupportedModelError the file is well-formed, but of a kind this package does not run
│   └── UnsupportedOpError  ... because of one operation: its name, type and output are said
└── PredictionError       the arrays given to ``predict`` do not fit the model's ports
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


class PredictionError(SdMilError):
    """Wrong input name, shape or dtype."""
