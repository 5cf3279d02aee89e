"""Train a small ControlNet for the demo checkpoint: it puts a shape where an edge map says.

    uv run python tools/train_controlnet.py --work ../runs/controlnet

The UNet stays as it is; its shapes are near the middle and of one size, those of the edge maps are anywhere
and from a fifth to two thirds of the picture wide. Writes a diffusers ControlNet in ``--work``/controlnet.
Run again, it resumes. Hours on two CPU cores; minutes on a GPU, with ``--device cuda --pairs 128
--pictures 40000``.

Lvmin Zhang, Anyi Rao, Maneesh Agrawala: Adding Conditional Control to Text-to-Image Diffusion Models, 2023.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from demo_checkpoint.pictures import paint
from demo_checkpoint.pipeline import hidden_states, open_pipeline
from demo_checkpoint.train import CONTEXT, SEED, caption_ids, guided_loss, noised, run_stage, to_unit
from sdc.demo.captions import COLOURS, seen_captions
from sdc.demo.conditioned import wanted_pictures
from sdc.demo.judge import overlap
from sdc.demo.shapes import coverage, edges, place
from torch import nn

#: Pictures that are drawn at a time.
_CHUNK: Final = 256


def drawn(chunk: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``count`` pictures (N, H, W, 3), their edge maps (N, 1, H, W), both as bytes, and captions (N,)."""
    rng, captions = np.random.default_rng([SEED, 4, chunk]), seen_captions()
    chosen = rng.integers(len(captions), size=count)
    pictures, maps = [], []
    for number in chosen.tolist():
        caption = captions[number]
        covered = coverage(caption.shape, *place(rng))
        pictures.append(paint(covered, COLOURS[caption.colour], COLOURS[caption.background]))
        maps.append(edges(covered, int(rng.integers(1, 3)))[None, ..., 0])
    return np.stack(pictures), np.stack(maps), chosen


@torch.no_grad()
def make_pictures(work: Path, vae: Any, count: int, device: torch.device) -> dict[str, torch.Tensor]:
    """``count`` pictures: their latents (N, 4, H/8, W/8), edge maps (N, 1, H, W) as bytes, captions (N,)."""
    store = work / f"pictures-{count}.pt"
    if not store.exists():
        sizes = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
        latents, maps, captions = [], [], []
        with ThreadPoolExecutor() as pool:
            for pictures, edge_maps, chosen in pool.map(drawn, range(len(sizes)), sizes):
                latents += [
                    vae.encode(part.to(device)).latent_dist.mean.cpu()
                    for part in to_unit(list(pictures)).tensor_split(-(-len(pictures) // 32))
                ]
                maps.append(torch.from_numpy(edge_maps))
                captions.append(torch.from_numpy(chosen))
        made = {"latents": torch.cat(latents), "maps": torch.cat(maps), "captions": torch.cat(captions)}
        torch.save(made, store)
    loaded: dict[str, torch.Tensor] = torch.load(store, weights_only=True)
    return {name: tensor.to(device) for name, tensor in loaded.items()}


def new_controlnet(unet: Any) -> Any:
    """A ControlNet of the UNet's own shape, whose edge maps pass through few channels."""
    from diffusers import ControlNetModel

    torch.manual_seed(SEED + 5)
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 32, 64))


def control_loss(
    pipeline: Any, controlnet: Any, made: dict[str, torch.Tensor], pairs: int
) -> Callable[[int], torch.Tensor]:
    """How far the controlled UNet is from the pictures of a step, with a caption, without, and guided."""
    device, tokenizer = pipeline.device, pipeline.tokenizer
    ids = torch.stack(caption_ids(tokenizer)).to(device)
    empty = tokenizer("", padding="max_length", max_length=CONTEXT, return_tensors="pt").input_ids.to(device)
    middle = (made["latents"].mean(dim=(0, 2, 3)) * pipeline.vae.config.scaling_factor).view(1, -1, 1, 1)

    def loss_of(_: int) -> torch.Tensor:
        rows = torch.randint(len(made["latents"]), (pairs,), device=device)
        clean = made["latents"][rows] * pipeline.vae.config.scaling_factor
        tokens = ids[made["captions"][rows], torch.randint(ids.shape[1], (pairs,), device=device)]
        batch = noised(clean, middle, tokens)
        given = *batch.twice(device), hidden_states(pipeline.text_encoder, torch.cat([tokens, empty]))
        hints = made["maps"][rows].expand(-1, 3, -1, -1).float().repeat(2, 1, 1, 1) / 255
        down, last = controlnet(*given, hints, return_dict=False)
        found = pipeline.unet(
            *given, down_block_additional_residuals=down, mid_block_additional_residual=last
        ).sample
        return guided_loss(found, batch.target.repeat(2, 1, 1, 1), batch.signal)

    return loss_of


@torch.no_grad()
def overlaps(pipeline: Any, controlnet: Any, count: int, *, steps: int = 20) -> list[float]:
    """Intersection over union of what diffusers draws with each of ``count`` edge maps, which none saw."""
    from diffusers import StableDiffusionControlNetPipeline

    controlled = StableDiffusionControlNetPipeline(
        **pipeline.components, controlnet=controlnet, requires_safety_checker=False
    )
    controlled.set_progress_bar_config(disable=True)
    found = []
    for start in range(0, count, 16):
        wanted = wanted_pictures(count)[start : start + 16]
        made = controlled(
            [str(one.caption) for one in wanted],
            image=[one.hint for one in wanted],
            num_inference_steps=steps,
            generator=[torch.Generator("cpu").manual_seed(start + n) for n in range(len(wanted))],
        )
        found += [overlap(image, one.covered) for image, one in zip(made.images, wanted, strict=True)]
    return found


def main() -> None:
    """Parse options, train, write the ControlNet, judge it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="states and the ControlNet go here")
    parser.add_argument(
        "--checkpoint", type=Path, help="diffusers folder; the one that ships with sdc if none"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument(
        "--pairs", type=int, default=16, help="pictures a step, with and without their captions"
    )
    parser.add_argument("--pictures", type=int, default=4_000)
    parser.add_argument("--rate", type=float, default=7e-4, help="learning rate after the warm-up")
    parser.add_argument("--judge", type=int, default=0, help="how many pictures to draw and judge")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    device = torch.device(options.device)
    pipeline = open_pipeline(options.checkpoint).to(device)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False)
    made = make_pictures(options.work, pipeline.vae, options.pictures, device)
    controlnet = new_controlnet(pipeline.unet).to(device)
    modules = nn.ModuleDict({"controlnet": controlnet})
    loss_of = control_loss(pipeline, controlnet, made, options.pairs)
    modules.load_state_dict(
        run_stage(
            "controlnet", options.work, modules, loss_of, steps=options.steps, rate=options.rate, warmup=50
        )
    )
    half = copy.deepcopy(controlnet).half()
    half.save_pretrained(options.work / "controlnet", safe_serialization=True)
    count = sum(weight.numel() for weight in controlnet.parameters())
    print(f"wrote {options.work / 'controlnet'}: {count / 1e6:.2f} million weights")
    if options.judge:
        found = np.array(overlaps(pipeline, half.float(), options.judge))
        print(
            f"intersection over union of {len(found)} pictures: mean {found.mean():.3f}, median "
            f"{np.median(found):.3f}, least {found.min():.3f}, under 0.8: {int((found < 0.8).sum())}"
        )


if __name__ == "__main__":
    main()
