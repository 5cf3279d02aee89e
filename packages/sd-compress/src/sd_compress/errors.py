"""What can go wrong when weights are compressed.

::

    CompressionError
    ├── RecipeError           a recipe that is malformed, or that does not fit the program
    ├── UnsuitableError       a weight that a scheme cannot be applied to, and that is kept as it is
    └── UnsupportedFormError  weights in a form that the deployment target does not have
"""

from __future__ import annotations


class CompressionError(Exception):
    """The base of all errors of this package; its message says what was expected and what came."""


class RecipeError(CompressionError):
    """A recipe that cannot be read, or that belongs to another model."""


class UnsupportedFormError(CompressionError):
    """A form of compressed weights that the deployment target lacks; the message names one that has it."""


class UnsuitableError(CompressionError):
    """A weight that a scheme cannot be applied to, and why. It is kept as it is, and reported."""
