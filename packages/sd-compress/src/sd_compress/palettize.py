"""Palettization alone, with the palettes of whoever finds them."""

from __future__ import annotations

from sd_mil import Program

from .compress import Assign, compress
from .errors import RecipeError
from .palettes import optimal_palette
from .recipe import Recipe
from .schemes import Keep, Palettize


def palettize(program: Program, recipe: Recipe, *, assign: Assign = optimal_palette) -> Program:
    """The program with the weights of ``recipe`` palettized; ``assign`` finds the palette of each.

    All holds that :func:`~sd_compress.compress.compress` says, which also reports what became of each weight.

    Raises:
        RecipeError: another method than palettization, or weights that the program lacks.
        UnsupportedFormError: a palette that the program's target cannot decode.
    """
    others = [name for name, one in recipe.schemes.items() if not isinstance(one, Palettize | Keep)]
    if others:
        raise RecipeError(f"expected palettization only, got other methods for {', '.join(others)}")
    return compress(program, recipe, assign=assign).program
