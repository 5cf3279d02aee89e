"""Networks behind their ports: ``forward`` takes the inputs in order and returns the outputs in order.

Imported by the builders when they build, because importing torch takes seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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


class UNetPorts(nn.Module):
    """diffusers' UNet with the text in the layout of the Neural Engine.

    Shapes: ``sample`` (B, C, H, W), ``timestep`` (B,), ``encoder_hidden_states`` (B, D, 1, S)
    -> (B, C, H, W).
    """

    def __init__(self, unet: nn.Module) -> None:
        """Wrap diffusers' ``UNet2DConditionModel``."""
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor]:
        """Predict the noise (or what the prediction type says) of one step."""
        text = encoder_hidden_states.squeeze(2).transpose(1, 2)  # (B, D, 1, S) -> (B, S, D)
        (prediction,) = self.unet(sample, timestep, text, return_dict=False)
        return (prediction,)


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

    Shapes: ``x`` (1, 3, F*H, F*W) -> ``latent`` (1, 2*C, H, W) with the VAE's factor F.
    """

    def __init__(self, encoder: nn.Module, quant_conv: nn.Module | None) -> None:
        """Take the parts of diffusers' ``AutoencoderKL``; newer ones lack the convolution."""
        super().__init__()
        self.encoder = encoder
        self.quant_conv = quant_conv or nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Read the image."""
        return (self.quant_conv(self.encoder(x)),)
