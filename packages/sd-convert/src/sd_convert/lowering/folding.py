"""What of a graph depends on weights alone, and can be computed of any weights when they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from sd_convert.lowering.computed import Expression

from .values import Weight


def computed_weight(operation: str, args: Sequence[Any], shape: tuple[int, ...]) -> Weight | None:
    """The weight that an ATen operation makes of weights; None if only torch knows how to."""
    rule = _RULES.get(operation)
    if rule is None or not isinstance(args[0], Weight):
        return None
    expression = rule(shape, *args)
    return None if expression is None else Weight(args[0].name, shape, expression)


def _embedding(shape: tuple[int, ...], table: Weight, indices: Any, *_: Any) -> Expression | None:
    if not isinstance(indices, torch.Tensor):
        return None
    count = indices.numel()
    if indices.flatten().tolist() != list(range(count)):
        return None
    return ("reshape", ("rows", table.value, count), *shape)


def _broadcast(shape: tuple[int, ...], x: Weight, *_: Any) -> Expression:
    return ("broadcast", x.value, *shape)


def _norm(
    _: tuple[int, ...], x: Weight, order: float, axes: Sequence[int], keep: bool = False
) -> Expression | None:
    return ("norm", x.value, axes[0]) if order == 2 and keep and len(axes) == 1 else None


def _at_least(_: tuple[int, ...], x: Weight, least: float) -> Expression:
    return ("at_least", x.value, least)


def _divide(_: tuple[int, ...], x: Weight, y: Any) -> Expression | None:
    return ("divide", x.value, y.value) if isinstance(y, Weight) else None


def _transpose(_: tuple[int, ...], x: Weight, first: int, second: int) -> Expression:
    return ("transpose", x.value, first, second)


_RULES: Final[Mapping[str, Callable[..., Expression | None]]] = {
    "aten.embedding.default": _embedding,
    "aten.expand.default": _broadcast,
    "aten.expand_as.default": _broadcast,
    "aten.linalg_vector_norm.default": _norm,
    "aten.clamp_min.default": _at_least,
    "aten.div.Tensor": _divide,
    "aten.transpose.int": _transpose,
}
