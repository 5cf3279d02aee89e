"""Weights compressed while a checkpoint is converted: nothing is written that is not kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sd_bundle import BundleComponent
    from sd_convert import Transform, Transformed
    from sd_mil import Program


def palettizing(nbits: int, folder: Path) -> Transform:
    """What palettizes the UNet and the text encoders, as ``sdc compress`` does, by way of ``folder``.

    Raises:
        sd_compress.RecipeError: widths that no table has.
    """
    from sd_compress import COMPRESSED_ROLES, Palettize

    scheme = Palettize(nbits)

    def transform(component: BundleComponent, program: Program) -> Transformed:
        from sd_compress import compress, describe_compression, storage_of, uniform_recipe
        from sd_convert import Transformed

        if component.role not in COMPRESSED_ROLES:
            return Transformed(program)
        recipe = uniform_recipe(program, scheme)
        made = compress(program, recipe, folder=folder if folder.is_dir() else None)
        total = storage_of(made.program).total
        described = describe_compression(component.name, made.weights, recipe, [total])
        compression, files = described or (None, {})
        return Transformed(made.program, compression, files)

    return transform
