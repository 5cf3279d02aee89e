"""One config of a checkpoint, whose values are checked as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_convert.errors import UnsupportedArchitectureError


@dataclass(frozen=True, slots=True)
class Section:
    """``values`` of the config of ``where`` (``org/model/unet``), which is untrusted."""

    where: str
    values: Mapping[str, Any]

    def count(self, key: str, default: int, *, most: int | None = None) -> int:
        """A whole number from one on.

        Raises:
            UnsupportedArchitectureError: it is something else, or more than ``most``.
        """
        value = self.values.get(key, default)
        if type(value) is not int or value < 1 or (most is not None and value > most):
            limit = "" if most is None else f" up to {most}"
            raise self.unexpected(key, f"a whole number{limit}")
        return value

    def number(self, key: str, default: float) -> float:
        """A number; errors as :meth:`count`."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.unexpected(key, "a number")
        return float(value)

    def items(self, key: str) -> tuple[Any, ...] | None:
        """A list that has something in it, or None; errors as :meth:`count`."""
        value = self.values.get(key)
        if value is not None and (not isinstance(value, list | tuple) or not value):
            raise self.unexpected(key, "a list")
        return None if value is None else tuple(value)

    def unexpected(self, key: str, expected: str) -> UnsupportedArchitectureError:
        """The error that says what ``key`` should be, and what it is."""
        return UnsupportedArchitectureError(
            f"{self.where}: {key}: expected {expected}, got {self.values.get(key)!r:.200}"
        )
