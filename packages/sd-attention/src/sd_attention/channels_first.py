"""Layers of a Transformer with channels where the Neural Engine wants them: on axis 1, ``(B, C, 1, S)``.

Each holds the parameters of the layer that it stands for, under their names and in their shapes, so state
dicts go both ways as they are. Given ``layout="BSC"`` a layer takes and returns what its original did,
``(..., C)``, and moves the axes inside; ``"BC1S"`` leaves the axes alone, for models that hold BC1S
throughout.

Source: "Deploying Transformers on the Apple Neural Engine"
(machinelearning.apple.com/research/neural-engine-transformers) and ane_transformers/reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layouts import from_bc1s, to_bc1s

Layout: TypeAlias = Literal["BSC", "BC1S"]


def channels_first(layer: Callable[[Tensor], Tensor], x: Tensor, layout: Layout) -> Tensor:
    """What ``layer``, which works in BC1S, makes of ``x`` in ``layout``; a BSC ``x`` is ``(..., C)``."""
    if layout == "BC1S":
        return layer(x)
    leading = x.shape[:-1]
    batch = leading[0] if leading else 1
    output = from_bc1s(layer(to_bc1s(x.reshape(batch, math.prod(leading[1:]), x.shape[-1]))))
    return output.reshape(*leading, output.shape[-1])


class PointwiseConv(nn.Module):
    """A linear layer as a convolution with a 1x1 kernel; ``weight`` ``(out, in)`` and ``bias`` are its own.

    Shapes: x ``(..., in)`` or ``(B, in, 1, S)``; returns ``(..., out)`` or ``(B, out, 1, S)``.
    """

    def __init__(self, source: nn.Linear, layout: Layout = "BSC") -> None:
        """Share the parameters of ``source``."""
        super().__init__()
        self.in_features, self.out_features = source.in_features, source.out_features
        self.weight, self.bias = source.weight, source.bias
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add."""
        return channels_first(self._convolve, x, self.layout)

    def _convolve(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight[:, :, None, None], self.bias)

    def extra_repr(self) -> str:
        """As ``torch.nn.Linear`` has it."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, layout={self.layout}"


class ChannelLayerNorm(nn.Module):
    """A layer norm over axis 1: centred, divided by the deviation, then scaled, then shifted, in this order.

    ane_transformers' ``LayerNormANE`` shifts first and divides the bias by the weight when a checkpoint is
    loaded; with the order kept there is nothing to convert, and no weight can be zero too many.

    Shapes: x ``(..., C)`` or ``(B, C, 1, S)``; returns the same.
    """

    def __init__(self, source: nn.LayerNorm, layout: Layout = "BSC") -> None:
        """Share the parameters of ``source``, which norms one axis."""
        super().__init__()
        self.normalized_shape, self.eps = source.normalized_shape, source.eps
        self.weight, self.bias = source.weight, source.bias
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """Norm each position over its channels."""
        return channels_first(self._norm, x, self.layout)

    def _norm(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        normed = centred * (centred.square().mean(1, keepdim=True) + self.eps).rsqrt()
        if self.weight is not None:
            normed = normed * self.weight[:, None, None]
        return normed if self.bias is None else normed + self.bias[:, None, None]


class GatedGELU(nn.Module):
    """GEGLU (arXiv:2002.05202) on axis 1: the first half of ``proj`` times the GELU of the second.

    Shapes: x ``(B, C, 1, S)``; returns ``(B, E, 1, S)`` for a ``proj`` from C to 2 E channels.
    """

    def __init__(self, proj: PointwiseConv) -> None:
        """Take ``proj`` in."""
        super().__init__()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        """Project, gate."""
        projected: Tensor = self.proj(x)
        hidden, gate = torch.split(projected, projected.shape[1] // 2, 1)
        return hidden * functional.gelu(gate)


class ProjectedGELU(nn.Module):
    """The GELU of ``proj`` in BC1S; ``approximate`` as in ``torch.nn.GELU``.

    Shapes: x ``(B, C, 1, S)``; returns ``(B, E, 1, S)``.
    """

    def __init__(self, proj: PointwiseConv, approximate: str) -> None:
        """Take ``proj`` in."""
        super().__init__()
        self.proj, self.approximate = proj, approximate

    def forward(self, x: Tensor) -> Tensor:
        """Project, then GELU."""
        hidden: Tensor = functional.gelu(self.proj(x), approximate=self.approximate)
        return hidden


class ChannelsFirst(nn.Sequential):
    """Layers in BC1S, one after the other, with one change of axes before them and one after.

    Shapes: x ``(..., C)`` or ``(B, C, 1, S)``; returns ``(..., E)`` or ``(B, E, 1, S)``.
    """

    layout: Layout = "BSC"

    def forward(self, x: Tensor) -> Tensor:
        """All layers in turn."""
        return channels_first(super().forward, x, self.layout)


class FeedForward(nn.Module):
    """A feed-forward block whose layers are in ``net``, as diffusers names them.

    Shapes: x ``(..., C)`` or ``(B, C, 1, S)``; returns ``(..., E)`` or ``(B, E, 1, S)``.
    """

    def __init__(self, net: ChannelsFirst) -> None:
        """Take ``net`` in."""
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """All layers in turn."""
        output: Tensor = self.net(x)
        return output
