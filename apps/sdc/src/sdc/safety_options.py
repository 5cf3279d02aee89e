"""The options of ``sdc generate`` that say what the safety checker is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sdc.sampling_options import options

if TYPE_CHECKING:
    from sd_runtime import Bundle, Safety

safety_options = options(
    click.option(
        "--disable-safety", is_flag=True, help="Do not ask the bundle's safety checker, if it has one."
    ),
    click.option(
        "--safety",
        type=click.Choice(["black", "blur", "report"]),
        help="What becomes of a picture that the safety checker flags; black by default.",
    ),
    click.option(
        "--safety-adjustment",
        type=float,
        metavar="NUMBER",
        help="Added to the checker's scores: above 0 it flags more, below 0 less.",
    ),
)


def safety_of(
    bundle: Bundle, action: str | None, adjustment: float | None, *, disabled: bool
) -> Safety | None:
    """What the options ask for; None for nothing in particular.

    Raises:
        UsageError: something is asked of a checker that is off, or that the bundle lacks.
        SettingsError: an adjustment out of range.
    """
    from sd_runtime import Safety

    asked = {"--safety": action, "--safety-adjustment": adjustment}
    stated = [name for name, value in asked.items() if value is not None]
    if stated and disabled:
        raise click.UsageError(f"expected either {stated[0]} or --disable-safety, got both")
    if stated and not bundle.components("safety_checker"):
        raise click.UsageError(f"expected a bundle with a safety checker for {stated[0]}, got one without")
    own = {"action": action, "adjustment": adjustment}
    given = {name: value for name, value in own.items() if value is not None}
    return Safety(**given) if given else None  # type: ignore[arg-type]
