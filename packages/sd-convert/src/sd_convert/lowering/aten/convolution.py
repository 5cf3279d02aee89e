"""Convolutions, linear layers, and what happens to images around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sd_convert.errors import LoweringError
from sd_convert.lowering.builder import Builder
from sd_convert.lowering.registry import lowers
from sd_convert.lowering.values import Tensor, Weight, from_bc1s, stored
from sd_convert.lowering.views import View


@lowers("aten.conv2d.default")
def conv2d(
    b: Builder,
    x: Tensor,
    weight: Weight,
    bias: Weight | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Convolution of a BCHW image."""
    return stored(
        _conv(
            b,
            b.plain(x),
            b.weight(weight),
            bias,
            strides=tuple(stride),
            pad=tuple(padding),
            dilations=tuple(dilation),
            groups=groups,
        )
    )


def _conv(
    b: Builder,
    x: Any,
    weight: Any,
    bias: Weight | None,
    *,
    strides: tuple[int, ...] = (1, 1),
    pad: tuple[int, ...] = (0, 0),
    dilations: tuple[int, ...] = (1, 1),
    groups: int = 1,
) -> Any:
    height, width = pad
    return b.emit(
        "conv",
        x=x,
        weight=weight,
        bias=None if bias is None else b.weight(bias),
        strides=strides,
        pad_type="custom" if any(pad) else "valid",
        pad=(height, height, width, width),
        dilations=dilations,
        groups=groups,
    )


@lowers("aten.linear.default")
def linear(b: Builder, x: Tensor, weight: Weight, bias: Weight | None = None) -> Tensor:
    """``x W^T + bias``: a 1x1 convolution where channels lie first, which the Neural Engine prefers."""
    outputs, inputs = weight.shape
    if x.is_bc1s:
        return from_bc1s(_conv(b, b.bc1s(x), b.weight(weight, (outputs, inputs, 1, 1)), bias))
    if len(x.shape) == 2 and b.has_images:
        pixel = b.arranged(x, (0, 1, None, None), (*x.shape, 1, 1))
        output = _conv(b, pixel, b.weight(weight, (outputs, inputs, 1, 1)), bias)
        return Tensor(output, View.of((x.shape[0], outputs)))
    bias_var = None if bias is None else b.weight(bias)
    return stored(b.emit("linear", x=b.plain(x), weight=b.weight(weight), bias=bias_var))


@lowers("aten.pad.default")
def pad(
    b: Builder, x: Tensor, pads: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Padding with a constant; torch lists the last dimension first, MIL the first."""
    if mode != "constant":
        raise LoweringError(f"{b.scope}: aten.pad.default: expected mode constant, got {mode}")
    pairs = [tuple(pads[i : i + 2]) for i in range(0, len(pads), 2)][::-1]
    pairs = [(0, 0)] * (len(x.shape) - len(pairs)) + pairs
    sizes = [size for pair in pairs for size in pair]
    return stored(
        b.emit(
            "pad", x=b.plain(x), pad=sizes, mode="constant", constant_val=b.constant(float(value or 0))[()]
        )
    )
