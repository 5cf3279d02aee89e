"""A component as an ``.mlpackage``: rewrite, export, lower, and stream the weights into place."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sd_convert.components.component import Component, Weights
from sd_convert.components.description import describe
from sd_convert.coreml import import_coremltools
from sd_convert.errors import OptionsError
from sd_convert.lowering.choice import chooser
from sd_convert.targets import target_named

from .lowered import LoweredComponent, tensor_hash
from .options import ATTENTION_IMPLEMENTATIONS, check_attention, one_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

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
    lowered = lower_component(
        component, attention=attention, compute_unit=compute_unit, target=target, precision=precision
    )
    written = lowered.write(path)
    return WrittenPackage(path, written.bytes, time.perf_counter() - begun, lowered.operations)


def lower_component(
    component: Component, *, attention: str, compute_unit: str | None, target: str, precision: str
) -> LoweredComponent:
    """Rewrite, export and lower ``component``: everything but the writing, see :func:`write_component`."""
    one_of("attention", attention, ATTENTION_IMPLEMENTATIONS)
    one_of("precision", precision, PRECISIONS)
    chosen = target_named(target)
    check_attention(attention, target)
    import_coremltools()
    from sd_convert.lowering.export import export
    from sd_convert.lowering.graph import lower
    from sd_convert.lowering.rewrite import rewrite_attention

    watched = _WatchedWeights(component.weights)
    rewritten = dataclasses.replace(rewrite_attention(component), weights=watched)
    choose = chooser(attention, compute_unit=compute_unit, target=chosen)
    program = lower(export(rewritten), rewritten, attention=choose, precision=precision, target=chosen)
    folded = {name: tensor_hash(component.weights, name) for name in sorted(watched.read)}
    return LoweredComponent(component.name, program, describe(component), chosen.specification, folded)


@dataclass(frozen=True, slots=True)
class _WatchedWeights:
    """The same weights; ``read`` are those that the lowering itself has read."""

    weights: Weights
    read: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        self.read.add(name)
        return self.weights[name]

    def __contains__(self, name: object) -> bool:
        return name in self.weights

    def shape(self, name: str) -> tuple[int, ...]:
        return self.weights.shape(name)

    @property
    def bytes(self) -> int:
        return self.weights.bytes
