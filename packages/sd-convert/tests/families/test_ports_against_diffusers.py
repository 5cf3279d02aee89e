"""What stands behind the ports of each family, against diffusers and transformers called as pipelines do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sd_convert import Component, ConversionOptions, build_component, open_checkpoint
from torch import Tensor, nn

Makers = Mapping[str, Callable[..., nn.Module]]
Make = Callable[..., tuple[Path, Mapping[str, Any]]]


def run(folder: Path, name: str, *inputs: Tensor) -> list[Tensor]:
    component: Component = build_component(
        name, open_checkpoint(folder, components=[name]), ConversionOptions()
    )
    names = component.module.state_dict()
    state = {name: torch.tensor(np.float32(component.weights[name])) for name in names}
    component.module.load_state_dict(state, assign=True)
    assert [tuple(tensor.shape) for tensor in inputs] == [port.shape for port in component.inputs]
    with torch.no_grad():
        return list(component.module(*inputs))


@torch.no_grad()
def test_sdxl(make: Make, tiny_networks: Makers) -> None:
    text = tiny_networks["text"]
    folder, networks = make(
        text_encoder=text(),
        text_encoder_2=text(projected=True, hidden_act="gelu"),
        unet=tiny_networks["xl_unet"](),
    )
    ids = torch.randint(0, 188, (1, 77)).float()
    ids[0, 0], ids[0, 9:] = 188, 189
    for name, pooled in (("text_encoder", "pooler_output"), ("text_encoder_2", "text_embeds")):
        expected = networks[name](ids.long(), output_hidden_states=True)
        for ours, theirs in zip(
            run(folder, name, ids), (expected.hidden_states[-2], expected[pooled]), strict=True
        ):
            torch.testing.assert_close(ours, theirs)
    sample, states, pooled_text = torch.randn(2, 4, 8, 8), torch.randn(2, 64, 1, 77), torch.randn(2, 24)
    time, sizes = torch.tensor([981.0, 3.0]), torch.tensor([[16.0, 16, 0, 0, 16, 16], [32, 16, 1, 2, 16, 16]])
    (found,) = run(folder, "unet", sample, time, states, sizes, pooled_text)
    added = {"time_ids": sizes, "text_embeds": pooled_text}
    expected = networks["unet"](sample, time, states[:, :, 0].mT, added_cond_kwargs=added).sample
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_a_latent_consistency_model(make: Make, tiny_networks: Makers) -> None:
    folder, networks = make(unet=tiny_networks["unet"](time_cond_proj_dim=16))
    sample, states, guidance = torch.randn(2, 4, 8, 8), torch.randn(2, 32, 1, 77), torch.randn(2, 16)
    time = torch.tensor([981.0, 3.0])
    (found,) = run(folder, "unet", sample, time, states, guidance)
    expected = networks["unet"](sample, time, states[:, :, 0].mT, timestep_cond=guidance).sample
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_the_tiny_autoencoder(make: Make, tiny_networks: Makers) -> None:
    folder, networks = make(vae=tiny_networks["taesd"]())
    z, x = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(run(folder, "vae_decoder", z)[0], networks["vae"].decode(z).sample)
    torch.testing.assert_close(run(folder, "vae_encoder", x)[0], networks["vae"].encode(x).latents)
