"""``sdc convert --recipe``: how a model for few steps wants to be sampled, as said or by a LoRA's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sd_convert import Checkpoint


def names() -> Sequence[str]:
    """Those that there are, and that of none."""
    from sd_runtime import NO_RECIPE, RECIPES

    return (*RECIPES, NO_RECIPE)


def check_recipe(recipe: str | None) -> None:
    """Refuse with :class:`click.UsageError` a name that ``sdc generate`` would not know."""
    if recipe is not None and recipe not in names():
        raise click.UsageError(f"--recipe: expected one of {', '.join(names())}, got {recipe!r}")


def recipe_of(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """The recipe of a LoRA that is merged into the checkpoint, and that LoRA: its name is all that says so.

    Of several that have one, the last.
    """
    from sd_runtime import recipe_published

    for name, lora in reversed(checkpoint.merged.loras):
        found = recipe_published([name]) if lora.scale else None
        if found is not None:
            return found.name, name
    return None
