"""What a rule is: a limit that somebody has found and published, and how to find what is beyond it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sd_mil.analysis.lint.scope import DEVICES, DeviceName, Scope
from sd_mil.ir.program import Operation

#: ``error``: it does not load, crashes, or computes something else. ``warning``: it runs elsewhere or slower,
#: or fails on some devices. ``note``: it could be better.
Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the limit is published, and of what date that is: ISO, or "read 2026-11" where it has none."""

    title: str
    url: str
    date: str


@dataclass(frozen=True, slots=True)
class Hit:
    """Something beyond the limit: what is said of it, and the operation, if it is one's.

    Hits of the same words are told together.
    """

    said: str
    operation: Operation | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit.

    ``says`` is the limit as a sentence, ``change`` what to do about it. ``since`` is the number of the iOS
    (26, 27: macOS counts the same) from which on it holds. ``repair``: whether ``sdc repair`` does it.
    """

    id: str
    severity: Severity
    says: str
    change: str
    source: Source
    find: Callable[[Scope], Iterable[Hit]]
    devices: frozenset[DeviceName] = frozenset(DEVICES)
    since: int = 0
    repair: bool = False

    def applies(self, scope: Scope) -> bool:
        """Whether the limit is one of that device under that system."""
        return scope.device.name in self.devices and scope.os >= self.since


def rule(
    id: str,  # noqa: A002 - the field's name
    severity: Severity,
    *,
    says: str,
    change: str,
    source: Source,
    devices: Iterable[DeviceName] = DEVICES,
    since: int = 0,
    repair: bool = False,
) -> Callable[[Callable[[Scope], Iterable[Hit]]], Rule]:
    """Make a rule of the decorated function, which finds what is beyond the limit in one function."""
    return lambda find: Rule(id, severity, says, change, source, find, frozenset(devices), since, repair)
