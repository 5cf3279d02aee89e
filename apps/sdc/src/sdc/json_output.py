"""``--json``: the facts that a command prints in tables, as JSON; one way for all commands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from sdc.console import printable_json

F = TypeVar("F", bound=Callable[..., Any])

_HELP: Final = "Print JSON instead of tables."
#: For the parameter ``as_json`` of a command.
json_option: Final = click.option("--json", "as_json", is_flag=True, help=_HELP)


def json_as(parameter: str) -> Callable[[F], F]:
    """The option for a command with several forms: it sets ``parameter`` to ``json``."""
    return click.option("--json", parameter, flag_value="json", help=_HELP)


def in_json(facts: Mapping[str, Any]) -> str:
    """Facts as JSON that nothing in a terminal obeys; numbers are finite."""
    return printable_json(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False))


def print_json(facts: Mapping[str, Any]) -> None:
    """On standard output, where nothing else is printed then."""
    click.echo(in_json(facts))


def finite(decibels: float | None) -> float | None:
    """None for infinite decibels: not a bit differs."""
    return None if decibels is None or not math.isfinite(decibels) else decibels
