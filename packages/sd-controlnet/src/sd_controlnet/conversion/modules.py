"""Networks behind their ports; imported when they are built, because importing torch takes seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


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
        self.names: dict[str, str] = {}  # of parameters that are called otherwise than in diffusers

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The residuals at full strength."""
        named = dict(zip(self.inputs, tensors, strict=True))
        hint = self._in_order(named["controlnet_cond"])
        down, middle = self.controlnet(
            named["sample"],
            named["timestep"],
            named["encoder_hidden_states"].squeeze(2).transpose(1, 2),  # (B, D, 1, S) -> (B, S, D)
            added_cond_kwargs={name: named[name] for name in ("time_ids", "text_embeds") if name in named},
            return_dict=False,
            **self._hinted(named, hint),
        )
        return (*down, middle)

    def _in_order(self, hint: Tensor) -> Tensor:
        return torch.cat([hint[:, 2:3], hint[:, 1:2], hint[:, 0:1]], dim=1) if self.is_bgr else hint

    def _hinted(self, _: Mapping[str, Tensor], hint: Tensor) -> dict[str, Any]:
        """The arguments that diffusers' class has for the hint."""
        return {"controlnet_cond": hint}


class UnionPorts(ControlNetPorts):
    """diffusers' union ControlNet for hints whose kinds are inputs.

    Shapes: those of :class:`ControlNetPorts`, and ``control_type`` (B, kinds), 1 at the hint's kind, else 0.
    Of several hints ``controlnet_cond_1``, ..., the kind of each, ``control_type_idx`` (B, hints, kinds), and
    ``conditioning_scale`` (B, hints), rows of which are alike.
    """

    def __init__(self, controlnet: nn.Module, inputs: Sequence[str], *, is_bgr: bool) -> None:
        """Wrap diffusers' ``ControlNetUnionModel``."""
        super().__init__(controlnet, inputs, is_bgr=is_bgr)
        table = controlnet.task_embedding
        del controlnet.task_embedding
        controlnet.task_embedding = _Rows(table)  # which is asked for a row that only the input knows
        self.names = {"task_embedding": "task_embedding.table"}
        layers: Any = controlnet.transformer_layes
        for layer in layers:  # diffusers' spelling
            layer.attn = _LoneAttention(layer.attn)

    def _hinted(self, named: Mapping[str, Tensor], hint: Tensor) -> dict[str, Any]:
        kind = named["control_type"]
        if "control_type_idx" in named:
            return self._several(named, hint)
        return {
            "controlnet_cond": [hint],
            "control_type": kind,
            "control_type_idx": [kind],
            "conditioning_scale": [1.0],
        }

    def _several(self, named: Mapping[str, Tensor], first: Tensor) -> dict[str, Any]:
        kinds, scales = named["control_type_idx"], named["conditioning_scale"]
        count = kinds.shape[1]
        hints = [first, *(self._in_order(named[f"controlnet_cond_{number}"]) for number in range(1, count))]
        return {
            "controlnet_cond": hints,
            "control_type": named["control_type"],
            "control_type_idx": [kinds[:, number] for number in range(count)],
            # (1, 1, 1), which goes with features (B, 1, C) and conditions (B, C, H, W)
            "conditioning_scale": [scales[:1, n : n + 1].unsqueeze(-1) for n in range(count)],
        }


class _LoneAttention(nn.Module):
    """``nn.MultiheadAttention`` of one token: its value, projected; parameters keep their names.

    diffusers' layers take the rows of a batch for tokens. These are alike, copies of one latent and one hint,
    so that each row is what it is alone.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(self, query: Tensor, *_: Tensor, **__: Any) -> tuple[Tensor, None]:
        """(B, tokens, C) -> the same, and no weights."""
        projected = functional.linear(query, self.in_proj_weight, self.in_proj_bias)
        return self.out_proj(projected.chunk(3, dim=-1)[2]), None


class _Rows(nn.Module):
    """A table (K, C) that is read with (B, K), 1 at the place of each row's: (B, C)."""

    def __init__(self, table: Any) -> None:
        super().__init__()
        self.table = table

    def __getitem__(self, places: Tensor) -> Tensor:
        return torch.matmul(places, self.table)


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


class ImageEncoderPorts(nn.Module):
    """CLIP's vision model with its projection.

    Shapes: ``pixel_values`` (1, 3, H, W), normalised -> ``image_embeds`` (1, P), ``hidden_states`` (1, S, C)
    as the last layer sees them.
    """

    def __init__(self, encoder: nn.Module) -> None:
        """Wrap transformers' ``CLIPVisionModelWithProjection``."""
        super().__init__()
        self.encoder = encoder
        for module in encoder.modules():  # the meta device leaves this buffer without values
            if isinstance(ids := getattr(module, "position_ids", None), Tensor):
                module.position_ids = torch.arange(ids.shape[-1], device="cpu")[None]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one picture."""
        encoded: Any = self.encoder(pixels, output_hidden_states=True)
        return encoded.image_embeds, encoded.hidden_states[-2]


class ImageProjectionPorts(nn.Module):
    """One of diffusers' image projections, with the tokens in the layout of the Neural Engine.

    Shapes: ``image_embeds`` (1, P) or ``hidden_states`` (1, S, C) -> tokens (1, D, 1, T).
    """

    def __init__(self, projection: nn.Module) -> None:
        """Wrap the projection."""
        super().__init__()
        self.projection = projection

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """The tokens of one image."""
        projection: Any = self.projection
        tokens = _resampled(projection, image) if hasattr(projection, "latents") else projection(image)
        return (tokens.transpose(1, 2).unsqueeze(2),)


def _resampled(resampler: Any, image: Tensor) -> Tensor:
    """``IPAdapterPlusImageProjection.forward``, with latents that seem to depend on the image.

    What depends on weights alone is computed when a network is lowered, and then holds for these alone.
    """
    hidden = resampler.proj_in(image)
    latents = resampler.latents + 0 * hidden[:, :1, :1]
    for block in resampler.layers:
        latents = block(hidden, latents, latents)
    return resampler.norm_out(resampler.proj_out(latents))  # type: ignore[no-any-return]
