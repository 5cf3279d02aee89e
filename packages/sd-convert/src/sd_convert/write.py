"""A component as an ``.mlpackage``: rewrite, export, lower, and stream the weights into place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .blueprint import Blueprint
from .choice import chooser
from .component import Component
from .coreml import import_coremltools
from .errors import OptionsError
from .options import ATTENTION_IMPLEMENTATIONS, check_attention, one_of
from .package import draw_blueprint, write_package
from .targets import target_named

PRECISIONS: Final = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class WrittenPackage:
    """What was written. ``bytes`` counts every file; ``operations`` every kind of MIL operation but const."""

    path: Path
    bytes: int
    seconds: float
    operations: Mapping[str, int]


def write_component(
    component: Component,
    path: Path,
    *,
    attention: str = "SPLIT_EINSUM",
    compute_unit: str | None = None,
    target: str = "macOS13",
    precision: str = "float16",
) -> WrittenPackage:
    """Convert ``component`` to a Core ML package at ``path``, which must not exist yet.

    ``compute_unit``: where the attention AUTO is to run; None is the Neural Engine.
    The weights are read once, tensor by tensor, while they are written. If anything goes wrong or the
    conversion is interrupted, what was written is removed.

    Raises:
        OptionsError: an unknown implementation, target or precision, or something exists at ``path``.
        LoweringError: the module does something that is not lowered.
        WeightsMismatchError: the checkpoint lacks a tensor, or has it in another shape.
    """
    if path.suffix != ".mlpackage" or path.exists():
        raise OptionsError(f"{path}: expected a new path that ends in .mlpackage; remove what is there")
    begun = time.perf_counter()
    blueprint = draw(
        component, attention=attention, compute_unit=compute_unit, target=target, precision=precision
    )
    write_package(blueprint, component.weights, path)
    return WrittenPackage(path, _size(path), time.perf_counter() - begun, blueprint.operations)


def draw(
    component: Component, *, attention: str, compute_unit: str | None, target: str, precision: str
) -> Blueprint:
    """Rewrite, export and lower ``component``: everything but the writing, see :func:`write_component`."""
    one_of("attention", attention, ATTENTION_IMPLEMENTATIONS)
    one_of("precision", precision, PRECISIONS)
    chosen = target_named(target)
    check_attention(attention, target)
    import_coremltools()
    from .export import export
    from .lowering import lower
    from .rewrite import rewrite_attention

    rewritten = rewrite_attention(component)
    choose = chooser(attention, compute_unit=compute_unit, target=chosen)
    lowered = lower(export(rewritten), rewritten, attention=choose, precision=precision, target=chosen)
    return draw_blueprint(component, lowered, specification=chosen.specification)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
