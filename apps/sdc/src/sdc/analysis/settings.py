"""The settings at which a model is looked at: widths for all weights alike, and recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from sd_compress import Assign, Recipe
    from sd_mil import Program


class Setting(Protocol):
    """How the weights of a program are stored at one candidate."""

    @property
    def name(self) -> str:
        """Of the candidate."""
        ...

    @property
    def kind(self) -> Literal["uniform", "recipe"]:
        """As the report has it."""
        ...

    @property
    def method(self) -> str:
        """What is done, in a few words."""
        ...

    @property
    def assigns(self) -> Mapping[str, Assign]:
        """By component what finds the palettes; without one, they are those of least squared error."""
        ...

    def recipe(self, program: Program) -> Recipe:
        """A scheme for each weight of the program that changes."""
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every layer's weight as indices of ``bits`` into its own table."""

    bits: int
    name: str
    method: str = "palettization"
    assigns: Mapping[str, Assign] = field(default_factory=dict)
    kind: Literal["uniform"] = "uniform"

    def recipe(self, program: Program) -> Recipe:
        """The weights that Apple's tools compress, too: embeddings, vectors and small ones stay."""
        from sd_compress import Palettize, uniform_recipe

        return uniform_recipe(program, Palettize(self.bits))


@dataclass(frozen=True, slots=True)
class FromRecipe:
    """What the recipe of a file says, which may be about several components."""

    name: str
    whole: Recipe
    method: str = "recipe"
    assigns: Mapping[str, Assign] = field(default_factory=dict)
    kind: Literal["recipe"] = "recipe"

    def recipe(self, program: Program) -> Recipe:
        """The part of it that is about this program."""
        from sd_compress import Recipe, weights_of

        names = {weight.name for weight in weights_of(program)}
        return Recipe({name: scheme for name, scheme in self.whole.schemes.items() if name in names})


def widths(bits: Iterable[int]) -> tuple[Uniform, ...]:
    """``4 bits``, ...; the largest first."""
    ordered = sorted(set(bits), reverse=True)
    return tuple(Uniform(width, f"{width} bit{'s' if width > 1 else ''}") for width in ordered)


def from_recipes(
    paths: Sequence[Path], programs: Sequence[Program], taken: Iterable[str]
) -> tuple[FromRecipe, ...]:
    """Recipes by the names of their files, which differ from those that are ``taken``.

    Raises:
        sd_compress.RecipeError: a file that is no recipe, or one with weights that none of ``programs`` has.
    """
    from sd_compress import check_names, read_recipe

    recipes = [read_recipe(path) for path in paths]
    for recipe in recipes:
        check_names(recipe, programs)
    return tuple(map(FromRecipe, _names(paths, set(taken)), recipes))


def check(setting: Setting, programs: Iterable[Program]) -> None:
    """Refuse, before any work is done, what a program's target cannot decode.

    Raises:
        sd_compress.UnsupportedFormError: naming the first target that can.
    """
    from sd_compress import check_recipe

    for program in programs:
        check_recipe(program, setting.recipe(program))


def _names(paths: Sequence[Path], taken: set[str]) -> list[str]:
    """The files' names without their suffix; where two are the same, numbered."""
    names: list[str] = []
    for path in paths:
        tries = (path.stem if not n else f"{path.stem} ({n + 1})" for n in range(len(paths) + len(taken) + 2))
        names.append(next(name for name in tries if name not in {"original", "mixed bits", *taken, *names}))
    return names
