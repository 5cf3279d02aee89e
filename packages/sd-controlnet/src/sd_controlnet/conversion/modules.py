"""Networks behind their ports; imported when they are built, because importing torch takes seconds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ControlNetPorts(nn.Module):
    """diffusers' ControlNet with the text in the layout of the Neural Engine.

    Shapes, by the names of ``inputs``: ``sample`` (B, C, H, W), ``timestep`` (B,), ``encoder_hidden_states``
    (B, D, 1, S), ``controlnet_cond`` (B, 3, F*H, F*W) RGB in [0, 1], and of SDXL ``time_ids`` (B, 6),
    ``text_embeds`` (B, P) -> a residual for each skip connection of the UNet, and one for its middle.
    """

    def __init__(self, controlnet: nn.Module, inputs: Sequence[str], *, is_bgr: bool) -> None:
        """Wrap diffusers' ``ControlNetModel``; ``is_bgr``: it was trained on hints in that order."""
        super().__init__()
        self.controlnet = controlnet
        self.inputs, self.is_bgr = tuple(inputs), is_bgr

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The residuals at full strength."""
        named = dict(zip(self.inputs, tensors, strict=True))
        hint = named["controlnet_cond"]
        if self.is_bgr:
            hint = torch.cat([hint[:, 2:3], hint[:, 1:2], hint[:, 0:1]], dim=1)
        down, middle = self.controlnet(
            named["sample"],
            named["timestep"],
            named["encoder_hidden_states"].squeeze(2).transpose(1, 2),  # (B, D, 1, S) -> (B, S, D)
            controlnet_cond=hint,
            added_cond_kwargs={name: named[name] for name in ("time_ids", "text_embeds") if name in named},
            return_dict=False,
        )
        return (*down, middle)


class AdapterPorts(nn.Module):
    """diffusers' T2I-Adapter.

    Shapes: ``input`` (B, 1|3, F*H, F*W) in [0, 1] -> features for each block of the UNet on the way down.
    """

    def __init__(self, adapter: nn.Module) -> None:
        """Wrap diffusers' ``T2IAdapter``."""
        super().__init__()
        self.adapter = adapter

    def forward(self, hint: Tensor) -> tuple[Tensor, ...]:
        """The features at full strength."""
        return tuple(self.adapter(hint))
