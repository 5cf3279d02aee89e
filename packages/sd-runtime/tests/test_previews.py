"""Colours of a latent, held to ComfyUI's lines in torch's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from sd_bundle import VaeFacts
from sd_runtime import latent_to_rgb
from sd_runtime.previews import COLOURS, colours_of


@pytest.mark.parametrize("scale", [0.18215, 0.13025])
def test_as_comfyui(scale: float) -> None:
    torch = pytest.importorskip("torch")
    latent = np.random.default_rng(0).standard_normal((1, 4, 5, 7)).astype(np.float32)
    colours = COLOURS[scale]
    factors = torch.tensor(colours.factors).transpose(0, 1)
    image = torch.nn.functional.linear(
        torch.from_numpy(latent)[0].movedim(0, -1), factors, bias=torch.tensor(colours.bias)
    )
    expected = (((image + 1.0) / 2.0).clamp(0, 1).mul(0xFF)).to(torch.uint8).numpy()
    got = latent_to_rgb(latent, colours)
    assert got.shape == (5, 7, 3)
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1  # sums in another order


def test_only_where_they_are_published() -> None:
    assert colours_of(VaeFacts(0.18215, 0.0, "moments"), 4) is COLOURS[0.18215]
    assert colours_of(VaeFacts(0.9, 0.0, "moments"), 4) is None
    assert colours_of(VaeFacts(0.18215, 0.0, "moments"), 16) is None
    assert colours_of(VaeFacts(0.18215, 0.1, "moments"), 4) is None
