"""What can go wrong when weights are compressed.

::

    CompressionError
    ├── BudgetError           a size or a quality that no recipe has; the message names the nearest
    ├── CalibrationError      inputs to calibrate with that cannot be used
    ├── RecipeError           a recipe that is malformed, or that does not fit the program
    ├── TrainingError         a network that cannot be trained in tables of few values
    ├── UnsuitableError       a weight that a scheme cannot be applied to, and that is kept as it is
    └── UnsupportedFormError  weights in a form that the deployment target does not have
"""

from __future__ import annotations


class CompressionError(Exception):
    """The base of all errors of this package; its message says what was expected and what came."""


class BudgetError(CompressionError):
    """A budget that cannot be met; the message names the nearest that can."""


class CalibrationError(CompressionError):
    """Calibration inputs that are missing or that the network cannot run on; the message names the layer."""


class RecipeError(CompressionError):
    """A recipe that cannot be read, or that belongs to another model."""


class TrainingError(CompressionError):
    """A weight that cannot have tables to be trained in; the message names it and what was expected."""


class UnsupportedFormError(CompressionError):
    """A form of compressed weights that the deployment target lacks; the message names one that has it."""


class UnsuitableError(CompressionError):
    """A weight that a scheme cannot be applied to, and why. It is kept as it is, and reported."""
