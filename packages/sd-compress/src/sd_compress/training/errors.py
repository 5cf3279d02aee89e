"""What can go wrong when a network is to be trained in values of tables."""

from __future__ import annotations


class TrainingError(ValueError):
    """A weight that cannot have tables; the message names the weight, what it is and what was expected."""
