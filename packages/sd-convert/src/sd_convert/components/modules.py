"""Networks behind their ports: ``forward`` takes the inputs in order and returns the outputs in order.

Imported by the builders when they build, because importing torch takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sd_convert.facts import ADAPTER_RESIDUAL, IMAGE_SCALE, IMAGE_TOKENS, RESIDUAL


class TextEncoderPorts(nn.Module):
    """CLIP's text model from token ids as numbers, as Core ML passes them.

    Shapes: ``input_ids`` (1, S) float -> ``last_hidden_state`` (1, S, C), ``pooled_outputs`` (1, C).
    """

    def __init__(self, text_encoder: nn.Module) -> None:
        """Wrap transformers' ``CLIPTextModel``."""
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one prompt."""
        # Positions are given, not left to the model's buffer, which the meta device leaves without values.
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        encoded = self.text_encoder(input_ids.to(torch.int64), position_ids=positions)
        return encoded.last_hidden_state, encoded.pooler_output


class PenultimatePorts(nn.Module):
    """CLIP's text model as SDXL uses it: what its last layer sees, before any final norm.

    Shapes: ``input_ids`` (1, S) float -> ``hidden_embeds`` (1, S, C), ``pooled_outputs`` (1, C), or (1, P) as
    projected by a model with a projection.
    """

    def __init__(self, text_encoder: nn.Module) -> None:
        """Wrap transformers' ``CLIPTextModel`` or ``CLIPTextModelWithProjection``."""
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one prompt."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        encoded = self.text_encoder(
            input_ids.to(torch.int64), position_ids=positions, output_hidden_states=True
        )
        pooled = encoded.text_embeds if "text_embeds" in encoded else encoded.pooler_output
        return encoded.hidden_states[-2], pooled


class UNetPorts(nn.Module):
    """diffusers' UNet with the text in the layout of the Neural Engine.

    Shapes: ``sample`` (B, C, H, W), ``timestep`` (B,), ``encoder_hidden_states`` (B, D, 1, S), and those of
    ``extras`` in order: ``time_ids`` (B, 5|6), ``text_embeds`` (B, P), ``timestep_cond`` (B, E),
    a ControlNet's residuals, the middle block's last, a T2I-Adapter's, of IP-Adapters the image tokens (B, D,
    1, T) and the scales (B, adapters) -> (B, C, H, W).
    """

    def __init__(self, unet: nn.Module, extras: Sequence[str] = ()) -> None:
        """Wrap diffusers' ``UNet2DConditionModel``; ``extras`` names the inputs after the first three."""
        super().__init__()
        self.unet = unet
        self.extras = tuple(extras)

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, *extras: Tensor
    ) -> tuple[Tensor]:
        """Predict the noise (or what the prediction type says) of one step."""
        named = dict(zip(self.extras, extras, strict=True))
        residuals = [tensor for name, tensor in named.items() if name.startswith(RESIDUAL)]
        adapters = [tensor for name, tensor in named.items() if name.startswith(ADAPTER_RESIDUAL)]
        (prediction,) = self.unet(
            sample,
            timestep,
            _attended(encoder_hidden_states, named),
            timestep_cond=named.get("timestep_cond"),
            added_cond_kwargs={name: named[name] for name in ("time_ids", "text_embeds") if name in named},
            down_block_additional_residuals=residuals[:-1] or None,
            mid_block_additional_residual=residuals[-1] if residuals else None,
            down_intrablock_additional_residuals=adapters or None,
            return_dict=False,
        )
        return (prediction,)


def _attended(text: Tensor, named: Mapping[str, Tensor]) -> Tensor | tuple[Any, ...]:
    """The text (B, S, D), or what ``sd_attention.DecoupledAttention`` takes: text, images and scales."""
    images = [_tokens(tensor) for name, tensor in named.items() if name.startswith(IMAGE_TOKENS)]
    return (_tokens(text), images, named[IMAGE_SCALE]) if images else _tokens(text)


def _tokens(x: Tensor) -> Tensor:
    """(B, D, 1, S) -> (B, S, D)."""
    return x.squeeze(2).transpose(1, 2)


class DecoderPorts(nn.Module):
    """The half of an autoencoder that draws; its input is already divided by the scaling factor.

    Shapes: ``z`` (1, C, H, W) -> ``image`` (1, 3, F*H, F*W) with the VAE's factor F.
    """

    def __init__(self, post_quant_conv: nn.Module | None, decoder: nn.Module) -> None:
        """Take the parts of diffusers' ``AutoencoderKL``; newer ones lack the convolution."""
        super().__init__()
        self.post_quant_conv = post_quant_conv or nn.Identity()
        self.decoder = decoder

    def forward(self, z: Tensor) -> tuple[Tensor]:
        """Draw the image."""
        return (self.decoder(self.post_quant_conv(z)),)


class EncoderPorts(nn.Module):
    """The half of an autoencoder that reads; returns the moments, mean and log variance, of the latents.

    Shapes: ``x`` (1, 3, F*H, F*W) -> ``latent`` (1, 2*C, H, W) with the VAE's factor F; (1, C, H, W), the
    latents themselves, of an ``AutoencoderTiny``.
    """

    def __init__(self, encoder: nn.Module, quant_conv: nn.Module | None) -> None:
        """Take the parts of diffusers' ``AutoencoderKL``; newer ones lack the convolution."""
        super().__init__()
        self.encoder = encoder
        self.quant_conv = quant_conv or nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Read the image."""
        return (self.quant_conv(self.encoder(x)),)


class SafetyCheckerPorts(nn.Module):
    """diffusers' safety checker without loops: scores are not rounded, and pictures are blanked by a product.

    Shapes: ``clip_input`` (B, 3, S, S), ``images`` (B, H, W, 3), ``adjustment`` (1,) -> ``filtered_images``
    (B, H, W, 3), ``has_nsfw_concepts`` (B, 1, 1, 1), ``concept_scores`` (B, 17).
    Source: ``forward_coreml`` in apple/ml-stable-diffusion, torch2coreml.py.
    """

    def __init__(self, checker: Any) -> None:
        """Wrap diffusers' ``StableDiffusionSafetyChecker``."""
        super().__init__()
        self.checker = checker
        for module in checker.modules():  # the meta device leaves this buffer without values
            if hasattr(module, "position_ids"):
                module.position_ids = torch.arange(module.position_ids.shape[-1], device="cpu")[None]

    def forward(
        self, clip_input: Tensor, images: Tensor, adjustment: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score every concept; a concept that needs special care lowers the thresholds of the others."""
        checker: Any = self.checker
        seen = functional.normalize(checker.visual_projection(checker.vision_model(clip_input)[1]))
        care = _cosines(seen, checker.special_care_embeds) - checker.special_care_embeds_weights + adjustment
        scores = _cosines(seen, checker.concept_embeds) - checker.concept_embeds_weights
        scores = scores + 0.01 * _any_positive(care)
        unsafe = _any_positive(scores)[:, :, None, None]
        return images * (1 - unsafe), unsafe, scores


def _cosines(x: Tensor, y: Tensor) -> Tensor:
    """Of ``x`` (B, C), already of length one, and ``y`` (N, C) -> (B, N)."""
    return x @ functional.normalize(y).transpose(0, 1)


def _any_positive(x: Tensor) -> Tensor:
    """(B, N) -> (B, 1): 1 where a number is above zero, else 0."""
    return x.gt(0).float().sum(dim=1, keepdim=True).gt(0).float()
