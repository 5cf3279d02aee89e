"""A component as an ``.mlpackage``: rewrite, export, lower, and stream the weights into place."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .choice import chooser
from .component import Component
from .coreml import import_coremltools
from .errors import OptionsError
from .options import ATTENTION_IMPLEMENTATIONS, check_attention
from .targets import target_named

if TYPE_CHECKING:
    from .lowering import Lowered

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
    _one_of("attention", attention, ATTENTION_IMPLEMENTATIONS)
    _one_of("precision", precision, PRECISIONS)
    chosen = target_named(target)
    check_attention(attention, target)
    if path.suffix != ".mlpackage" or path.exists():
        raise OptionsError(f"{path}: expected a new path that ends in .mlpackage; remove what is there")
    begun = time.perf_counter()
    import_coremltools()
    from .export import export
    from .lowering import lower
    from .package import write_package
    from .rewrite import rewrite_attention

    rewritten = rewrite_attention(component)
    choose = chooser(attention, compute_unit=compute_unit, target=chosen)
    lowered = lower(export(rewritten), rewritten, attention=choose, precision=precision, target=chosen)
    try:
        write_package(component, lowered, path=path, specification=chosen.specification)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return WrittenPackage(path, _size(path), time.perf_counter() - begun, _histogram(lowered))


def _one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionsError(f"{option}: expected one of {', '.join(choices)}, got {value!r}")


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _histogram(lowered: Lowered) -> dict[str, int]:
    operations = lowered.program.functions["main"].operations
    return dict(Counter(op.op_type for op in operations if op.op_type != "const").most_common())
