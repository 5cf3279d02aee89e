"""Networks of a bundle by the names that users give them."""

from __future__ import annotations

from collections.abc import Collection

from sd_runtime import BundleComponent, Pipeline

from sd_controlnet.errors import ControlNetError


def named(name: str, pipeline: Pipeline, roles: Collection[str], option: str) -> BundleComponent:
    """The network of one of ``roles`` with that name, or the one whose name ends so after a ``/``.

    ``option``: that of ``sdc convert`` which adds one.

    Raises:
        ControlNetError: there is none, or several.
    """
    found = [
        component
        for role in roles
        for component in pipeline.bundle.manifest.components
        if component.role == role
    ]
    exact = [component for component in found if component.name == name]
    ending = [component for component in found if component.name.endswith(f"/{name}")]
    if len(chosen := exact or ending) == 1:
        return chosen[0]
    have = ", ".join(component.name for component in found) or "none"
    hint = "" if found else f": convert the checkpoint again with {option}"
    raise ControlNetError(
        f"expected a ControlNet or adapter of {pipeline.bundle.path} ({have}), got {name!r}{hint}"
    )


def described(shape: tuple[int, ...] | None) -> str:
    """A shape, or none."""
    return "none" if shape is None else str(list(shape))
