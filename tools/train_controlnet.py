"""Train a small ControlNet for the demo checkpoint: it puts a shape where an edge map says.

    uv run python tools/train_controlnet.py --work ../runs/controlnet

The UNet stays as it is; its shapes are near the middle and of one size, those of the edge maps are anywhere
and from a fifth to two thirds of the picture wide. Writes a diffusers ControlNet in ``--work``/controlnet.
Run again, it resumes. Lvmin Zhang, Anyi Rao, Maneesh Agrawala: Adding Conditional Control to Text-to-Image
Diffusion Models, 2023.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from demo_checkpoint.pictures import paint
from demo_checkpoint.train import SEED, caption_ids, run_stage, to_unit
from sdc.demo.captions import COLOURS, seen_captions
from sdc.demo.shapes import coverage, edges, place
from torch import nn
from train_palettized import open_pipeline

#: Of a captioned picture, how often the caption is left out, so that both guided branches obey the edges.
_UNCAPTIONED = 0.25


@torch.no_grad()
def make_pictures(work: Path, vae: Any, count: int) -> dict[str, torch.Tensor]:
    """``count`` pictures: their latents (N, 4, H/8, W/8), edge maps (N, 3, H, W) as bytes, captions (N,)."""
    store = work / f"pictures-{count}.pt"
    if not store.exists():
        rng, captions = np.random.default_rng([SEED, 4]), seen_captions()
        chosen = torch.from_numpy(rng.integers(len(captions), size=count))
        latents, maps = [], []
        for start in range(0, count, 16):
            pictures = []
            for number in chosen[start : start + 16].tolist():
                caption = captions[number]
                covered = coverage(caption.shape, *place(rng))
                pictures.append(paint(covered, COLOURS[caption.colour], COLOURS[caption.background]))
                maps.append(torch.from_numpy(edges(covered, int(rng.integers(1, 3)))).permute(2, 0, 1))
            latents.append(vae.encode(to_unit(pictures)).latent_dist.mean)
        made = {"latents": torch.cat(latents), "maps": torch.stack(maps), "captions": chosen}
        torch.save(made, store)
    loaded: dict[str, torch.Tensor] = torch.load(store, weights_only=True)
    return loaded


def new_controlnet(unet: Any) -> Any:
    """A ControlNet of the UNet's own shape, whose edge maps pass through few channels."""
    from diffusers import ControlNetModel

    torch.manual_seed(SEED + 5)
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 32, 64))


def control_loss(
    pipeline: Any, controlnet: Any, made: dict[str, torch.Tensor], batch: int
) -> Callable[[int], torch.Tensor]:
    """How far the controlled UNet is from the pictures, at noise levels drawn for the step."""
    ids = caption_ids(pipeline.tokenizer)
    empty = pipeline.tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids[0]
    alphas, factor = pipeline.scheduler.alphas_cumprod, pipeline.vae.config.scaling_factor

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([SEED, 5, step])
        rows = torch.from_numpy(rng.integers(len(made["latents"]), size=batch))
        clean = made["latents"][rows] * factor
        captions = [ids[number] for number in made["captions"][rows].tolist()]
        left_out = rng.random(batch) < _UNCAPTIONED
        tokens = [
            empty if out else rows_of[rng.integers(len(rows_of))]
            for rows_of, out in zip(captions, left_out, strict=True)
        ]
        with torch.no_grad():
            states = pipeline.text_encoder(torch.stack(tokens))[0]
        timestep = (1000 * torch.rand(batch).sqrt()).long().clamp(max=999)
        alpha = alphas[timestep].view(-1, 1, 1, 1)
        noise = torch.randn_like(clean)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        hints = made["maps"][rows].float() / 255
        down, middle = controlnet(noisy, timestep, states, hints, return_dict=False)
        found = pipeline.unet(
            noisy,
            timestep,
            states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        return nn.functional.mse_loss(found, velocity)

    return loss_of


def main() -> None:
    """Parse options, train, write the ControlNet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="states and the ControlNet go here")
    parser.add_argument(
        "--checkpoint", type=Path, help="diffusers folder; the one that ships with sdc if none"
    )
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=4_000)
    parser.add_argument("--rate", type=float, default=7e-4, help="learning rate after the warm-up")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    pipeline = open_pipeline(options.checkpoint)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False)
    made = make_pictures(options.work, pipeline.vae, options.pictures)
    controlnet = new_controlnet(pipeline.unet)
    modules = nn.ModuleDict({"controlnet": controlnet})
    loss_of = control_loss(pipeline, controlnet, made, options.batch)
    modules.load_state_dict(
        run_stage(
            "controlnet", options.work, modules, loss_of, steps=options.steps, rate=options.rate, warmup=50
        )
    )
    controlnet.half().save_pretrained(options.work / "controlnet", safe_serialization=True)
    count = sum(weight.numel() for weight in controlnet.parameters())
    print(f"wrote {options.work / 'controlnet'}: {count / 1e6:.2f} million weights")


if __name__ == "__main__":
    main()
