"""A diffusers ``scheduler_config.json``, read with types, and what a scheduler makes of its keys.

One config serves every scheduler, as in diffusers: ``EulerDiscreteScheduler.from_config(pndm.config)`` takes
the keys it knows, and its own default for a key that is missing or null. So defaults live with each
scheduler, and a key that only another scheduler of the family reads changes nothing. A key that no scheduler
declares is refused, since nobody can say what it would change.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from sd_schedulers.errors import ScheduleError


@dataclass(frozen=True, slots=True)
class Settings:
    """Typed access to a config; null counts as missing."""

    values: Mapping[str, object]

    def get(self, key: str, default: object) -> object:
        """The value as it stands."""
        value = self.values.get(key)
        return default if value is None else value

    def choice(self, key: str, default: str, allowed: Collection[str]) -> str:
        """One of ``allowed``."""
        value = self.get(key, default)
        if not isinstance(value, str) or value not in allowed:
            raise ScheduleError(f"expected {key} of {', '.join(allowed)}; got {value!r}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ScheduleError(f"expected {key} to be true or false, got {value!r}")
        return value

    def number(self, key: str, default: float, *, low: float, high: float) -> float:
        """A finite number between ``low`` and ``high``, both included."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ScheduleError(f"expected {key} to be a finite number, got {value!r}")
        if not low <= value <= high:
            raise ScheduleError(f"expected {key} from {low} to {high}, got {value}")
        return float(value)

    def count(self, key: str, default: int, *, low: int, high: int) -> int:
        """A whole number between ``low`` and ``high``, both included."""
        value = self.number(key, default, low=low, high=high)
        if value != int(value):
            raise ScheduleError(f"expected {key} to be a whole number, got {value}")
        return int(value)

    def one_flag(self, keys: Iterable[str]) -> str | None:
        """Which of the flags ``keys`` is true; None where all are false.

        Raises:
            ScheduleError: more than one is.
        """
        given = [key for key in keys if self.flag(key, default=False)]
        if len(given) > 1:
            raise ScheduleError(f"expected one of {', '.join(given)} to be true, got all of them")
        return given[0] if given else None


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """What a scheduler makes of each key of a config that it knows.

    - ``honoured``: the value decides the result, as it does in diffusers.
    - ``without_effect``: no value changes a result here; the text says why.
    - ``limited``: the values that change nothing here. Any other would change the result in a way that is not
      implemented, so it is refused.
    """

    honoured: frozenset[str]
    without_effect: Mapping[str, str] = field(default_factory=dict)
    limited: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a key that is declared twice: one of the two would be a lie."""
        twice = [key for key in self.names if sum(key in kind for kind in self._kinds()) > 1]
        if twice:
            raise ScheduleError(
                f"expected each config key to be declared once, got twice: {', '.join(twice)}"
            )

    @property
    def names(self) -> frozenset[str]:
        """Every key that is declared."""
        return frozenset().union(*self._kinds())

    def check(self, settings: Settings, *, scheduler: str, foreign: Collection[str]) -> None:
        """Hold a config to what is declared; ``foreign`` keys are those that only other schedulers read.

        Keys that begin with an underscore (``_class_name``) are notes.

        Raises:
            ScheduleError: a key that no scheduler has, or a value that ``scheduler`` cannot follow.
        """
        for key, value in settings.values.items():
            if key[:1] == "_" or value is None:
                continue
            if key in self.limited:
                self._check_value(key, value, scheduler)
            elif key not in self.names and key not in foreign:
                raise ScheduleError(
                    f"expected the keys of a diffusers scheduler config, got {key!r} for scheduler "
                    f"{scheduler!r}: remove it, or name a scheduler that reads it"
                )

    def _check_value(self, key: str, value: object, scheduler: str) -> None:
        # By type too: 0 is not False, and 1.0 is not True.
        allowed = self.limited[key]
        if not any(
            value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in allowed
        ):
            shown = " or ".join(repr(choice) for choice in allowed) or "to be left out"
            raise ScheduleError(
                f"expected {key} {shown} for scheduler {scheduler!r}, got {value!r}: not supported"
            )

    def _kinds(self) -> tuple[Collection[str], Collection[str], Collection[str]]:
        return self.honoured, self.without_effect, self.limited
