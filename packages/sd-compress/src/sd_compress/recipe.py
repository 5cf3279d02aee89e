"""What is to be done to each weight, as a file: JSON, versioned, keyed by the weights' names in the program.

::

    {
      "format": "sd-compress recipe",
      "version": 1,
      "weights": {
        "down_blocks_0_resnets_0_conv1_weight_to_fp16": {"method": "palettize", "nbits": 6},
        "conv_in_weight_to_fp16": {"method": "linear", "dtype": "int8"}
      }
    }

Weights that are not named are kept as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from sd_bundle import ManifestError, parse_json
from sd_mil import Program

from .errors import RecipeError
from .scheme_json import scheme_from_json, scheme_to_json
from .schemes import Keep, Scheme
from .weights import Weight, weights_of

FORMAT: Final = "sd-compress recipe"
VERSION: Final = 1

#: The operations whose weights are compressed unless others are asked for. Not ``gather``: embeddings.
LAYERS: Final = ("conv", "conv_transpose", "linear", "matmul")
#: Elements below which a weight is kept as it is: coremltools' ``weight_threshold``.
FEWEST_ELEMENTS: Final = 2048
_LARGEST_FILE: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class Recipe:
    """A scheme for each weight that is to be compressed, by its name in the program."""

    schemes: Mapping[str, Scheme]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which weights of a program.

    ``names``: patterns as the shell has them, of which one must match; ``without``: none of which may.
    ``kinds``: types of the operations that take the weight. ``fewest_elements``: smaller ones are left out.
    """

    names: tuple[str, ...] = ("*",)
    without: tuple[str, ...] = ()
    kinds: tuple[str, ...] = LAYERS
    fewest_elements: int = FEWEST_ELEMENTS

    def has(self, weight: Weight) -> bool:
        """Whether the weight is among them; biases and other vectors never are."""
        return (
            weight.kind in self.kinds
            and len(weight.shape) > 1
            and weight.elements >= self.fewest_elements
            and any(fnmatchcase(weight.name, pattern) for pattern in self.names)
            and not any(fnmatchcase(weight.name, pattern) for pattern in self.without)
        )


_ALL: Final = Selection()


def uniform_recipe(program: Program, scheme: Scheme, selection: Selection = _ALL) -> Recipe:
    """One scheme for all selected weights of a program."""
    return Recipe({weight.name: scheme for weight in weights_of(program) if selection.has(weight)})


def with_schemes(recipe: Recipe, schemes: Mapping[str, Scheme]) -> Recipe:
    """The recipe with other schemes for the weights whose names match a pattern; the last match counts."""
    changed = dict(recipe.schemes)
    for pattern, scheme in schemes.items():
        changed |= {name: scheme for name in changed if fnmatchcase(name, pattern)}
    return Recipe(changed)


def format_recipe(recipe: Recipe) -> str:
    """The recipe as the text of a file."""
    weights = {name: scheme_to_json(scheme) for name, scheme in recipe.schemes.items()}
    return f"{json.dumps({'format': FORMAT, 'version': VERSION, 'weights': weights}, indent=2)}\n"


def parse_recipe(text: str) -> Recipe:
    """The inverse of :func:`format_recipe`.

    Raises:
        RecipeError: not JSON, another format or version, or a scheme that is none.
    """
    document = parse_document(text)
    if document.get("format") != FORMAT:
        raise RecipeError(f"$.format: expected {FORMAT!r}, got {document.get('format')!r}")
    if document.get("version") != VERSION:
        raise RecipeError(f"$.version: expected {VERSION}, got {document.get('version')!r}")
    if unknown := sorted(document.keys() - {"format", "version", "weights"}):
        raise RecipeError(f"$: expected the fields format, version and weights, got {unknown}")
    weights = document.get("weights")
    if not isinstance(weights, dict):
        raise RecipeError(f"$.weights: expected schemes by the names of weights, got {weights!r}")
    return Recipe({name: scheme_from_json(one, f"$.weights[{name!r}]") for name, one in weights.items()})


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe of a file.

    Raises:
        RecipeError: as :func:`parse_recipe`, or the file cannot be read.
    """
    try:
        return parse_recipe(read_text(path))
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file of a size that recipes have.

    Raises:
        RecipeError: it cannot be read, or is none.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise RecipeError(f"expected at most {_LARGEST_FILE} bytes, got {file.stat().st_size}")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"expected a recipe, got: {error}") from None


def parse_document(text: str) -> dict[str, Any]:
    """A JSON object, without what two readers might take for different things.

    Raises:
        RecipeError: it is none.
    """
    try:
        document = parse_json(text)
    except ManifestError as error:
        raise RecipeError(f"{error.where}: expected {error.expected}, got {error.got}") from None
    if not isinstance(document, dict):
        raise RecipeError(f"$: expected an object, got {type(document).__name__}")
    return document


def check_names(recipe: Recipe, programs: Iterable[Program]) -> None:
    """Refuse a recipe of another model.

    Raises:
        RecipeError: every name that is no weight of any of the programs.
    """
    known = {weight.name for program in programs for weight in weights_of(program)}
    if missing := [name for name in recipe.schemes if name not in known]:
        raise RecipeError(
            f"expected names of weights that the program has, got {len(missing)} others of "
            f"{len(recipe.schemes)}: {_listed(missing)}; is the recipe that of another model?"
        )


def check_patterns(patterns: Iterable[str], programs: Iterable[Program]) -> None:
    """Refuse patterns of names that match no weight.

    Raises:
        RecipeError: those that match none of any program.
    """
    names = {weight.name for program in programs for weight in weights_of(program)}
    unmatched = [one for one in patterns if not any(fnmatchcase(name, one) for name in names)]
    if unmatched:
        raise RecipeError(f"expected patterns that names of weights match, got {_listed(unmatched)}")


def compressed_names(recipe: Recipe) -> list[str]:
    """The weights that the recipe does not keep."""
    return [name for name, scheme in recipe.schemes.items() if not isinstance(scheme, Keep)]


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))
