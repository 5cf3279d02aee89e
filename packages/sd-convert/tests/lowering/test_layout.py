"""Transformer blocks on images are computed in BC1S, with attention in the chosen form."""

from __future__ import annotations

import pytest
import torch
from sd_attention import opaque
from torch import Tensor, nn
from torch.nn import functional as F

SPLIT_EQUATIONS = ["bkhc,bchq->bkhq"] * 3 + ["bchk,bkhq->bchq"] * 3


class Attention(nn.Module):
    def __init__(self, channels: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_out = nn.Linear(channels, channels, bias=False), nn.Linear(channels, channels)
        self.to_k, self.to_v = nn.Linear(context, channels), nn.Linear(context, channels)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        return self.to_out(opaque(self.to_q(x), self.to_k(context), self.to_v(context), mask, self.heads))


class ImageTransformer(nn.Module):
    """A block of a UNet, in the shapes that diffusers gives it; ``linear`` projects after the permute."""

    def __init__(self, *, linear: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 24, 3, padding=1), nn.LayerNorm(24)
        self.proj_in = nn.Linear(24, 24) if linear else nn.Conv2d(24, 24, 1)
        self.attention, self.gate, self.proj_out = Attention(24, 10, 3), nn.Linear(24, 40), nn.Linear(20, 24)
        self.time = nn.Linear(4, 24)

    def forward(self, image: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = residual = self.conv(image) + self.time(F.silu(time))[:, :, None, None]
        batch, channels, height, width = x.shape
        if isinstance(self.proj_in, nn.Conv2d):
            x = self.proj_in(x)
        x = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        if isinstance(self.proj_in, nn.Linear):
            x = self.proj_in(x)
        x = x + self.attention(self.norm(x), context.squeeze(2).transpose(1, 2))
        value, gate = self.gate(x).chunk(2, dim=-1)
        x = self.proj_out(value * F.gelu(gate)) + x
        x = x.reshape(batch, height, width, channels).permute(0, 3, 1, 2).contiguous()
        return x + residual


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"image": torch.randn(2, 3, 4, 6), "time": torch.randn(2, 4), "context": torch.randn(2, 10, 1, 7)}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("attention", ["ORIGINAL", "SPLIT_EINSUM"])
def test_a_block_equals_torch(attention, linear, batch, convert, inputs):
    inputs = {name: tensor[:batch] for name, tensor in inputs.items()}
    converted = convert(ImageTransformer(linear=linear), inputs, attention=attention, precision="float32")
    converted.close(3e-6)
    assert "transpose" not in converted.operations or attention == "SPLIT_EINSUM"


@pytest.mark.parametrize("linear", [False, True])
def test_channels_stay_first_through_the_block(linear, convert, inputs):
    converted = convert(ImageTransformer(linear=linear), inputs, attention="ORIGINAL")
    assert converted.operations["conv"] == 9  # every linear layer and the two convolutions
    assert not {"linear", "einsum"} & converted.operations.keys()
    assert [layer["axes"].tolist() for layer in converted.kinds("layer_norm")] == [[1]]
    assert [split["axis"].item() for split in converted.kinds("split")] == [1]
    assert converted.operations["matmul"] == 2
    assert "transpose" not in converted.operations


def test_concatenation_stays_channels_first_too(convert):
    class Skip(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            tokens = image.flatten(2).transpose(1, 2)
            return torch.cat([tokens, F.silu(tokens)], -1).transpose(1, 2)

    converted = convert(Skip(), {"image": torch.randn(2, 3, 4, 6)}, precision="float32")
    converted.close(1e-6)
    assert [concat["axis"].item() for concat in converted.kinds("concat")] == [1]
    assert "transpose" not in converted.operations


def test_split_einsum_has_the_two_equations_for_each_head(convert, inputs):
    converted = convert(ImageTransformer(linear=False), inputs, attention="SPLIT_EINSUM")
    assert [einsum["equation"] for einsum in converted.kinds("einsum")] == SPLIT_EQUATIONS
    assert [softmax["axis"].item() for softmax in converted.kinds("softmax")] == [1, 1, 1]
    assert "matmul" not in converted.operations


class Masked(nn.Module):
    def __init__(self, *, per_head: bool) -> None:
        super().__init__()
        self.attention = Attention(12, 12, 3)
        self.per_head = per_head

    def forward(self, x: Tensor) -> Tensor:
        causal = torch.ones(1, 1, 5, 5, dtype=torch.bool, device=x.device).tril()
        far = (
            torch.arange(3, device=x.device).view(1, 3, 1, 1) - 1.0 + torch.zeros(1, 3, 5, 5, device=x.device)
        )
        return self.attention(x, mask=far.masked_fill(~causal, -torch.inf) if self.per_head else causal)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("attention", ["ORIGINAL", "SPLIT_EINSUM"])
def test_masks_are_finite_and_equal_torch(attention, per_head, convert):
    converted = convert(
        Masked(per_head=per_head), {"x": torch.randn(2, 5, 12)}, attention=attention, precision="float32"
    )
    converted.close(3e-6)
    masks = [add["y"] for add in converted.kinds("add") if "y" in add and add["y"].ndim == 4]
    assert masks
    assert all(mask.min() == -1e4 for mask in masks)


def test_sequences_without_images_keep_linear_layers(convert):
    class Encoder(nn.Sequential):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = super().forward(x)
            return y, self[0](y[:, 0])

    converted = convert(Encoder(nn.Linear(12, 12), nn.LayerNorm(12)), {"x": torch.randn(2, 5, 12)})
    assert converted.operations["linear"] == 2
    assert [layer["axes"].tolist() for layer in converted.kinds("layer_norm")] == [[-1]]


def test_timesteps_keep_their_digits(convert):
    """Angles are computed in float32 inside a float16 program: float16 would be off by half a radian."""

    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
            angles = timestep[:, None] * torch.exp(-torch.arange(4.0, device=timestep.device))
            waves = torch.cat([torch.sin(angles), torch.cos(angles)], -1)
            return waves, self.linear(waves)

    converted = convert(Embedding(), {"timestep": torch.tensor([999.0, 731.0]).half()})
    converted.close(5e-4)
