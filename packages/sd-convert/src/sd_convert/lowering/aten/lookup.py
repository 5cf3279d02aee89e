"""Token ids: casts, look-ups, comparisons, and the pooling of a text encoder."""

from __future__ import annotations

from typing import Any

import torch

from sd_convert.errors import LoweringError
from sd_convert.lowering.builder import Builder
from sd_convert.lowering.registry import lowers
from sd_convert.lowering.values import Tensor, Weight, stored


@lowers("aten.to.dtype", "aten.to.device", "aten.to.dtype_layout")
def to(b: Builder, x: Tensor, *_: Any, result: torch.dtype) -> Tensor:
    """A cast between kinds of numbers; every float is the program's float, every integer an int32."""
    if result.is_floating_point:
        return b.converted(x, b.dtype.name)
    return b.converted(x, "bool" if result == torch.bool else "int32")


@lowers("aten.embedding.default")
def embedding(b: Builder, weight: Weight, indices: Tensor, *_: Any) -> Tensor:
    """Rows of a table."""
    return stored(b.emit("gather", x=b.weight(weight), indices=b.plain(indices), axis=0, batch_dims=0))


@lowers("aten.eq.Scalar")
def eq(b: Builder, x: Tensor, number: float) -> Tensor:
    """Where ``x`` is ``number``."""
    return Tensor(b.emit("equal", x=x.var, y=number), x.view)


@lowers("aten.argmax.default")
def argmax(b: Builder, x: Tensor, axis: int | None = None, keepdim: bool = False) -> Tensor:
    """The first position of the largest element."""
    if axis is None:
        raise LoweringError(f"{b.scope}: aten.argmax.default: expected an axis, got none")
    return stored(b.emit("reduce_argmax", x=b.plain(x), axis=axis, keep_dims=keepdim))


@lowers("aten.index.Tensor")
def index(b: Builder, x: Tensor, indices: list[Tensor | torch.Tensor | None]) -> Tensor:
    """``x[i, j, ...]``: the elements at the points that index vectors for the leading axes give."""
    if any(one is None or len(one.shape) != 1 for one in indices):
        raise LoweringError(f"{b.scope}: aten.index.Tensor: expected one index vector for each leading axis")
    vectors = [
        b.plain(one) if isinstance(one, Tensor) else b.constant(one) for one in indices if one is not None
    ]
    points = b.emit("stack", values=vectors, axis=1)
    return stored(b.emit("gather_nd", x=b.plain(x), indices=points, batch_dims=0))
