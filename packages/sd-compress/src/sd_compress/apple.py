"""The recipe files of Apple's mixed-bit analysis: bits by the path of a module in the torch model.

::

    {"model_version": "org/model", "baselines": {...},
     "recipes": {"recipe_4.50_bit_mixedpalette": {"down_blocks.0.resnets.0.conv1": 4, "conv_in": 16, ...}}}

16 bits are no palette. A module is found by its path: dots became underscores on the way to the program.

Source: ``mixed_bit_compression_apply.py`` of apple/ml-stable-diffusion, which looks for weights by a hash of
their first element and their size instead, and so takes one layer for another.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from sd_mil import Program

from .errors import RecipeError
from .recipe import FORMAT, LAYERS, Recipe, parse_document, parse_recipe, read_text
from .schemes import PALETTE_BITS, Keep, Palettize, Scheme
from .weights import Weight, weights_of

#: What converters add to the name of a module's weight.
_SUFFIX: Final = re.compile(r"(_weight)?(_to_fp(16|32))?(_\d+)?$")
_UNCOMPRESSED: Final = 16


def read_any_recipe(
    path: str | os.PathLike[str], name: str | None = None
) -> Recipe | Callable[[Program], Recipe]:
    """The recipe of a file, or what makes one of a program if it is Apple's; ``name`` is one of those in it.

    Raises:
        RecipeError: neither, or malformed; Apple's without a name where it has several.
    """
    try:
        text = read_text(path)
        if parse_document(text).get("format") == FORMAT:
            if name is not None:
                raise RecipeError(f"expected a file of several recipes to choose {name!r} from, got one")
            return parse_recipe(text)
        bits = parse_apple_recipe(text, name)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    return lambda program: apple_recipe(program, bits)


def parse_apple_recipe(text: str, name: str | None = None) -> dict[str, int]:
    """Bits by module, of the recipe ``name``; None is the only one.

    Raises:
        RecipeError: no such file, no such recipe, or bits that palettes do not have.
    """
    recipes = parse_document(text).get("recipes")
    if not isinstance(recipes, dict) or not recipes:
        raise RecipeError(f"expected the format {FORMAT!r}, or Apple's with recipes, got neither")
    if name is None and len(recipes) > 1:
        raise RecipeError(f"expected the name of one of {len(recipes)} recipes: {', '.join(recipes)}")
    chosen = next(iter(recipes)) if name is None else name
    if chosen not in recipes:
        raise RecipeError(f"expected one of the recipes {', '.join(recipes)}, got {chosen!r}")
    return _checked(recipes[chosen], f"$.recipes[{chosen!r}]")


def _checked(bits: Any, where: str) -> dict[str, int]:
    if not isinstance(bits, dict) or not bits:
        raise RecipeError(f"{where}: expected bits by module, got {bits!r}")
    allowed = (*PALETTE_BITS, _UNCOMPRESSED)
    wrong = [
        f"{module}: {one!r}" for module, one in bits.items() if type(one) is not int or one not in allowed
    ]
    if wrong:
        raise RecipeError(f"{where}: expected bits among {allowed}, got {', '.join(wrong)}")
    return bits


def apple_recipe(program: Program, bits: Mapping[str, int]) -> Recipe:
    """The recipe for a program's weights.

    Raises:
        RecipeError: modules that the program has no weight of, or several; all are listed.
    """
    by_module: dict[str, list[Weight]] = {}
    for weight in weights_of(program):
        if weight.kind in LAYERS and len(weight.shape) > 1:
            by_module.setdefault(_SUFFIX.sub("", weight.name), []).append(weight)
    prefix = _prefix(by_module, [_identifier(module) for module in bits])
    found = {module: by_module.get(prefix + _identifier(module), []) for module in bits}
    problems = [
        module if not weights else f"{module} ({' and '.join(one.name for one in weights)})"
        for module, weights in found.items()
        if len({one.name for one in weights}) != 1
    ]
    if problems:
        raise RecipeError(
            f"expected modules that the program has one weight of, got {len(problems)} others of "
            f"{len(bits)}: {', '.join(problems)}; is the recipe that of another model?"
        )
    return Recipe({found[module][0].name: _scheme(one) for module, one in bits.items()})


def format_apple_recipe(recipe: Recipe, modules: Mapping[str, str], *, name: str, model_version: str) -> str:
    """A file that Apple's scripts read: ``modules`` has the path of the module that each weight is from.

    Raises:
        RecipeError: weights without a module, or schemes that are no palettes for the whole weight.
    """
    missing = [one for one in recipe.schemes if one not in modules]
    other = [one for one, scheme in recipe.schemes.items() if _bits(scheme) is None]
    if missing or other:
        raise RecipeError(
            f"expected palettes for whole weights of known modules, got others: {', '.join(missing + other)}"
        )
    bits = {modules[one]: _bits(scheme) for one, scheme in recipe.schemes.items()}
    document = {"model_version": model_version, "baselines": {}, "recipes": {name: bits}}
    return f"{json.dumps(document, indent=2)}\n"


def _bits(scheme: Scheme) -> int | None:
    if isinstance(scheme, Keep):
        return _UNCOMPRESSED
    is_plain = isinstance(scheme, Palettize) and scheme == Palettize(scheme.nbits)
    return scheme.nbits if isinstance(scheme, Palettize) and is_plain else None


def _scheme(bits: int) -> Scheme:
    return Keep() if bits == _UNCOMPRESSED else Palettize(bits)


def _prefix(names: Collection[str], modules: Collection[str]) -> str:
    """What precedes the modules' paths in ``names``: converters wrap a network (``unet_``), or do not.

    The prefix under which most are found, the shortest of those.
    """
    ends = {one for module in modules for one in names if one.endswith(f"_{module}")}
    prefixes = {"", *(one.removesuffix(module) for one in ends for module in modules)} - ends
    return min(prefixes, key=lambda prefix: (-sum(prefix + one in names for one in modules), len(prefix)))


def _identifier(module: str) -> str:
    return re.sub(r"\W", "_", module)
