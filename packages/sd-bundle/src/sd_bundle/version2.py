"""Manifests of version 2: one variant of a network for each picture size, no recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sd_bundle.errors import Literally, ManifestError
from sd_bundle.schema import Json


def upgrade(document: Mapping[str, Json]) -> Json:
    """The document of version 3 that says the same; what else is wrong with it is found by its reader.

    Raises:
        ManifestError: it has the field of version 3, or two variants for one size.
    """
    model: Any = document.get("model")
    if not isinstance(model, dict):
        return {**document, "version": 3}
    if "recipe" in model:
        raise ManifestError("$.model.recipe", "no such field in version 2", model["recipe"])
    _check_sizes(document.get("components"))
    return {**document, "version": 3, "model": {**model, "recipe": None}}


def _check_sizes(components: Json) -> None:
    for index, component in enumerate(components if isinstance(components, list) else ()):
        variants = component.get("variants") if isinstance(component, dict) else None
        seen: list[Json] = []
        for variant in variants if isinstance(variants, list) else ():
            size = variant.get("size") if isinstance(variant, dict) else None
            if size in seen:
                where = f"$.components[{index}].variants"
                raise ManifestError(where, "each size once in version 2", Literally("one twice"))
            seen.append(size)
