"""Which elements of a weight share a table, or a scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .errors import RecipeError


def check(holds: bool, name: str, expected: str, got: object) -> None:
    """Refuse a field that breaks a rule.

    Raises:
        RecipeError: it does not hold.
    """
    if not holds:
        raise RecipeError(f".{name}: expected {expected}, got {got!r}")


def is_count(value: object) -> bool:
    """Whether it is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_axis(value: object) -> bool:
    """Whether it is the number of an axis, or none."""
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


@dataclass(frozen=True, slots=True)
class PerTensor:
    """One table, or one scale, for the whole weight."""


@dataclass(frozen=True, slots=True)
class PerChannel:
    """A scale for each channel along ``axis``; None is the axis of output channels."""

    axis: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no axis."""
        check(is_axis(self.axis), "axis", "the number of an axis", self.axis)


@dataclass(frozen=True, slots=True)
class PerGroupedChannel:
    """A table for each ``group_size`` neighbouring channels along ``axis``; None is the output channels'."""

    group_size: int
    axis: int | None = None

    def __post_init__(self) -> None:
        """Refuse groups of nothing, and what is no axis."""
        check(is_count(self.group_size), "group_size", "a positive integer", self.group_size)
        check(is_axis(self.axis), "axis", "the number of an axis", self.axis)


@dataclass(frozen=True, slots=True)
class PerBlock:
    """A scale for each output channel and each ``block_size`` neighbouring inputs."""

    block_size: int

    def __post_init__(self) -> None:
        """Refuse blocks of nothing."""
        check(is_count(self.block_size), "block_size", "a positive integer", self.block_size)


Granularity: TypeAlias = PerTensor | PerChannel | PerGroupedChannel | PerBlock
