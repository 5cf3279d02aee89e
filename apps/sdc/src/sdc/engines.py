"""``--engine`` and ``--precision``: the same names in every command, from sd-mil's own table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


class EngineName(click.ParamType):  # type: ignore[type-arg] # generic in some releases of click only
    """The name of an engine; the table is imported when one is given, or help is asked for."""

    name = "engine"

    def choices(self) -> list[str]:
        """All names."""
        from sd_mil.engines import AUTO, ENGINES

        return [AUTO, *ENGINES]

    def get_metavar(self, *_: Any, **__: Any) -> str:
        """The names, as click's own choices have it."""
        return f"[{'|'.join(self.choices())}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse other names."""
        if value not in self.choices():
            self.fail(f"expected one of {', '.join(self.choices())}, got {value!r}", param, ctx)
        return str(value)


def engine_options(default: str) -> Callable[[_F], _F]:
    """The two options, with the engine that a command takes by itself."""

    def add(command: _F) -> _F:
        precision = click.option(
            "--precision",
            type=click.Choice(["fp32", "bf16"]),
            help="Arithmetic of the portable engine; by default fp32.",
        )
        engine = click.option(
            "--engine",
            type=EngineName(),
            default=default,
            show_default=True,
            help="portable: OpenVINO. reference: numpy, slow, exact. coreml: a Mac's own. "
            "auto: coreml on a Mac, else portable.",
        )
        return engine(precision(command))

    return add
