"""Layer and group normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sd_convert.lowering.builder import Builder
from sd_convert.lowering.registry import lowers
from sd_convert.lowering.values import Tensor, Weight, from_bc1s, stored

#: Variance and epsilon of a batch_norm that only scales and shifts: their sum is 1 exactly, in float16 too.
_UNIT_VARIANCE: Final = (1 - 2**-11, 2**-11)


@lowers("aten.layer_norm.default")
def layer_norm(
    b: Builder,
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Weight | None = None,
    bias: Weight | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Normalisation over the last dimensions: the channel axis if they lie first."""
    parameters = {
        "gamma": None if weight is None else b.weight(weight),
        "beta": None if bias is None else b.weight(bias),
        "epsilon": b.number(eps),
    }
    if x.is_bc1s and len(normalized_shape) == 1:
        return from_bc1s(b.emit("layer_norm", x=b.bc1s(x), axes=[1], **parameters))
    axes = list(range(-len(normalized_shape), 0))
    return stored(b.emit("layer_norm", x=b.plain(x), axes=axes, **parameters))


@lowers("aten.group_norm.default")
def group_norm(
    b: Builder,
    x: Tensor,
    groups: int,
    weight: Weight | None = None,
    bias: Weight | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """Normalisation over the channels of a group and all pixels.

    MIL has no such operation. The mean is subtracted before squares are averaged, as coremltools' front end
    does: in float16 the mean of the squares themselves would overflow.
    """
    batch, channels, *pixels = x.shape
    grouped = b.plain(b.reshaped(x, (batch, groups, channels // groups, *pixels)))
    axes = list(range(2, 3 + len(pixels)))
    centred = b.emit("sub", x=grouped, y=b.emit("reduce_mean", x=grouped, axes=axes, keep_dims=True))
    squares = b.emit("square", x=centred)
    variance = b.emit("reduce_mean", x=squares, axes=axes, keep_dims=True)
    deviation = b.emit("sqrt", x=b.emit("add", x=variance, y=b.number(eps)))
    normal = b.emit("real_div", x=centred, y=deviation)
    flat = b.emit("reshape", x=normal, shape=x.shape)
    return stored(_scaled(b, flat, weight, bias))


def _scaled(b: Builder, x: Any, weight: Weight | None, bias: Weight | None) -> Any:
    """``x * weight + bias`` for each channel: one operation for images, two for sequences."""
    if weight is None or bias is None:
        return x
    if len(x.shape) == 4:
        variance, epsilon = _UNIT_VARIANCE
        return b.emit(
            "batch_norm",
            x=x,
            mean=b.filled(0.0, x.shape[1]),
            variance=b.filled(variance, x.shape[1]),
            gamma=b.weight(weight),
            beta=b.weight(bias),
            epsilon=b.number(epsilon),
        )
    shape = (1, x.shape[1], *[1] * (len(x.shape) - 2))
    return b.emit("add", x=b.emit("mul", x=x, y=b.weight(weight, shape)), y=b.weight(bias, shape))
