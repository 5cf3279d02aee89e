"""Train the demo checkpoint: a small latent diffusion model in diffusers format.

    uv run --directory tools python -m demo_checkpoint.train --work ../runs/demo

Stages, each resumed from its last saved step when the command is run again: the VAE on coloured shapes, the
latents of the training pictures, UNet and text encoder together, then the decoder alone. From a fixed seed;
about two hours on two CPU cores with bf16 (much less on a GPU: ``--device cuda``).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sdc.demo.captions import COLOURS, SHAPES, Caption, seen_captions
from sdc.demo.shapes import SIZE
from torch import nn

from demo_checkpoint.model import new_scheduler, new_text_encoder, new_unet, new_vae
from demo_checkpoint.pictures import draw
from demo_checkpoint.tokenizer import write_tokenizer

SEED = 20260
PICTURES_PER_CAPTION = 64
GUIDANCE = 7.5
CONTEXT = 77


# --- pictures -----------------------------------------------------------------------------------------


def to_unit(pictures: list[np.ndarray]) -> torch.Tensor:
    """uint8 (H, W, 3) pictures to float (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def vae_batch(rng: np.random.Generator, size: int) -> torch.Tensor:
    """Shapes, four times in five in caption colours: the VAE must not be a palette."""

    def colour() -> tuple[int, int, int]:
        if rng.random() < 0.8:
            return tuple(COLOURS.values())[rng.integers(len(COLOURS))]
        red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
        return red, green, blue

    return to_unit([draw(SHAPES[rng.integers(len(SHAPES))], colour(), colour(), rng) for _ in range(size)])


def crop(pictures: torch.Tensor, rng: np.random.Generator, size: int) -> torch.Tensor:
    """A square of each picture (B, 3, H, W), anywhere in it."""
    offsets = rng.integers(0, pictures.shape[-1] - size + 1, (len(pictures), 2))
    return torch.stack(
        [picture[:, y : y + size, x : x + size] for picture, (y, x) in zip(pictures, offsets, strict=True)]
    )


def phrasings(caption: Caption) -> list[str]:
    """The caption itself, most often, and the ways people would shorten it."""
    c, s, b = caption.colour, caption.shape, caption.background
    article = {word: "an" if word[0] in "aeiou" else "a" for word in (c, b)}
    return [
        *[str(caption)] * 7,
        f"{article[c]} {c} {s} on {article[b]} {b} background",
        f"{c} {s} on {b} background",
        f"{article[c]} {c} {s} on {b}",
    ]


# --- shared machinery ---------------------------------------------------------------------------------


def schedule(step: int, steps: int, warmup: int) -> float:
    """Learning rate factor: linear warm-up, then a cosine to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Ema:
    """An exponential moving average of parameters, with a short memory at the start."""

    def __init__(self, modules: nn.ModuleDict, decay: float = 0.999) -> None:
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in modules.state_dict().items()}

    def update(self, modules: nn.ModuleDict, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in modules.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value.detach(), 1 - decay)
            else:
                self.average[name].copy_(value)


def run_stage(
    name: str,
    work: Path,
    modules: nn.ModuleDict,
    loss_of: Callable[[int], torch.Tensor],
    *,
    steps: int,
    rate: float,
    warmup: int = 200,
    report: int = 50,
    save: int = 250,
) -> dict[str, torch.Tensor]:
    """Optimise ``modules``; returns the averaged weights. Every random draw depends on the step alone, so a
    resumed run sees what an uninterrupted one would have seen."""
    state_file = work / f"{name}.pt"
    optimiser = torch.optim.AdamW(modules.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    ema = Ema(modules)
    first = 0
    if state_file.exists():
        state: dict[str, Any] = torch.load(state_file, weights_only=True)
        modules.load_state_dict(state["modules"])
        optimiser.load_state_dict(state["optimiser"])
        ema.average = state["ema"]
        first = state["step"]
    started, running = time.perf_counter(), 0.0
    for step in range(first, steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * schedule(step, steps, warmup)
        torch.manual_seed(SEED * 1_000_003 + step)
        loss = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimiser.step()
        ema.update(modules, step)
        running = loss.item() if not running else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % report == 0:
            seconds = (time.perf_counter() - started) / (step + 1 - first)
            left = seconds * (steps - step - 1) / 60
            print(
                f"{name} {step + 1}/{steps} loss {running:.5f} {seconds:.3f} s/step, {left:.0f} min left",
                flush=True,
            )
        if (step + 1) % save == 0 or step + 1 == steps:
            partial = state_file.with_suffix(".tmp")
            torch.save(
                {
                    "modules": modules.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "ema": ema.average,
                    "step": step + 1,
                },
                partial,
            )
            partial.replace(state_file)
    return ema.average


# --- stages -------------------------------------------------------------------------------------------


def train_vae(work: Path, device: torch.device, *, steps: int, batch: int) -> nn.Module:
    """The autoencoder, three times in four on crops: they show as many edges at a quarter of the cost.

    The decoder also sees latents with noise added, so that it forgives the UNet's.
    """
    torch.manual_seed(SEED)
    vae = new_vae().to(device)

    def loss_of(step: int) -> torch.Tensor:
        rng = np.random.default_rng([SEED, 1, step])
        pictures = vae_batch(rng, batch).to(device)
        if step % 4:
            pictures = crop(pictures, rng, SIZE // 2)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
            latent = posterior.sample()
            spread = latent.detach().float().std()
            latent = latent + 0.1 * spread * torch.rand(batch, 1, 1, 1, device=device) * torch.randn_like(
                latent
            )
            drawn = vae.decode(latent).sample.float()
        error = drawn - pictures
        kl = posterior.kl().float().mean() / latent[0].numel()
        loss: torch.Tensor = error.abs().mean() + error.square().mean() + 2e-4 * kl
        return loss

    modules = nn.ModuleDict({"vae": vae})
    modules.load_state_dict(run_stage("vae", work, modules, loss_of, steps=steps, rate=1.5e-3))
    trained: nn.Module = vae.eval().requires_grad_(False)
    return trained


def sharpen_decoder(work: Path, vae: Any, device: torch.device, *, steps: int, batch: int) -> None:
    """The decoder alone on whole pictures, edges counting five times; the latents stay what they are."""

    def loss_of(step: int) -> torch.Tensor:
        pictures = vae_batch(np.random.default_rng([SEED, 3, step]), batch).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            with torch.no_grad():
                latent = vae.encode(pictures).latent_dist.mean
                wander = 0.15 * latent.std() * torch.rand(batch, 1, 1, 1, device=device)
                latent = latent + wander * torch.randn_like(latent)
            drawn = vae.decode(latent).sample.float()
        error = (drawn - pictures).abs()
        loss: torch.Tensor = ((error + error.square()) * (1 + 4 * near_edges(pictures))).mean()
        return loss

    modules = nn.ModuleDict({"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv})
    modules.requires_grad_(True)
    modules.load_state_dict(run_stage("decoder", work, modules, loss_of, steps=steps, rate=7e-4))
    modules.requires_grad_(False)


def near_edges(pictures: torch.Tensor) -> torch.Tensor:
    """1 within four pixels of an edge, 0 elsewhere; (B, 1, H, W)."""
    highest = nn.functional.max_pool2d(pictures, 9, stride=1, padding=4)
    lowest = -nn.functional.max_pool2d(-pictures, 9, stride=1, padding=4)
    return ((highest - lowest).amax(dim=1, keepdim=True) > 0.1).float()


@torch.no_grad()
def encode_pictures(
    work: Path, vae: Any, device: torch.device, *, per_caption: int = PICTURES_PER_CAPTION
) -> tuple[torch.Tensor, float]:
    """Latents (caption, picture, 4, H/8, W/8) of all training pictures, scaled to unit variance."""
    store = work / f"latents-{per_caption}.pt"
    if not store.exists():
        rng = np.random.default_rng([SEED, 2])
        captions = seen_captions()
        rows: list[torch.Tensor] = []
        for caption in captions:
            pictures = [
                draw(caption.shape, COLOURS[caption.colour], COLOURS[caption.background], rng)
                for _ in range(per_caption)
            ]
            halves = to_unit(pictures).to(device).chunk(4)
            rows.append(torch.cat([vae.encode(half).latent_dist.mean for half in halves]).cpu())
        torch.save(torch.stack(rows).half(), store)
    latents = torch.load(store, weights_only=True).float()
    factor = 1 / latents.std().item()
    return latents * factor, factor


def caption_ids(tokenizer: Any) -> list[torch.Tensor]:
    """Token ids (phrasing, 77) of every training caption."""
    return [
        tokenizer(
            phrasings(caption), padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
        ).input_ids
        for caption in seen_captions()
    ]


@dataclass(frozen=True)
class NoisyBatch:
    """Noisy latents (B, 4, H/8, W/8), their timesteps (B,) and captions (B, 77), and what they were made of.

    ``target`` is the velocity whose estimate is the clean latent; ``signal`` (B, 1, 1, 1) that latent's part.
    """

    noisy: torch.Tensor
    timestep: torch.Tensor
    tokens: torch.Tensor
    target: torch.Tensor
    signal: torch.Tensor

    def twice(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and timesteps for both branches: with the captions, and with the empty one."""
        return self.noisy.repeat(2, 1, 1, 1).to(device), self.timestep.repeat(2).to(device)


def noisy_batch(latents: torch.Tensor, ids: list[torch.Tensor], step: int, pairs: int) -> NoisyBatch:
    """What a step shows of latents (caption, picture, 4, H/8, W/8); torch's seed is the caller's."""
    rng = random.Random(SEED * 7_919 + step)
    chosen = [rng.randrange(len(ids)) for _ in range(pairs)]
    clean = torch.stack([latents[c, rng.randrange(latents.shape[1])] for c in chosen])
    tokens = torch.stack([ids[c][rng.randrange(len(ids[c]))] for c in chosen])
    return noised(clean, latents.mean(dim=(0, 1, 3, 4)).view(1, -1, 1, 1), tokens)


def noised(clean: torch.Tensor, middle: torch.Tensor, tokens: torch.Tensor) -> NoisyBatch:
    """Latents (B, 4, H/8, W/8) with more of the noisy end, where colours are decided; ``middle`` is the mean.

    Half of the pictures are noised from a latent pushed away from, or towards, the mean picture, as guided
    sampling pushes it, while the target stays the true one, so that the network learns to come back.
    (Measured along guided PNDM trajectories: the push is 0.1 of the distance from the mean in units of the
    noise level at t = 901, and 0.5 to 1 from t = 500 on.)
    """
    pairs, device = len(clean), clean.device
    timestep = (1000 * torch.rand(pairs, device=device).sqrt()).long().clamp(max=999)
    alpha = new_scheduler().alphas_cumprod.to(device)[timestep].view(-1, 1, 1, 1)
    signal, noise_level = alpha.sqrt(), (1 - alpha).sqrt()
    reach = (0.2 + 1.2 * signal).clamp(max=1)
    push = reach * (2 * torch.rand(pairs, 1, 1, 1, device=device) - 0.5)
    push = push * (torch.rand(pairs, 1, 1, 1, device=device) < 0.5)
    noisy = signal * clean + noise_level * (torch.randn_like(clean) + push * (clean - middle))
    return NoisyBatch(noisy, timestep, tokens, (signal * noisy - clean) / noise_level, signal)


def guided_loss(velocity: torch.Tensor, target: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
    """The error of both branches (2B, 4, H, W) and of the guided combination.

    What the two branches disagree on is multiplied by 7.5 in use.
    """
    (with_caption, without), (true, true_without) = velocity.chunk(2), target.chunk(2)
    guided = without + GUIDANCE * (with_caption - without)
    true_guided = true_without + GUIDANCE * (true - true_without)
    loss: torch.Tensor = (
        (with_caption - true).square().mean()
        + 0.5 * (without - true_without).square().mean()
        + (0.15 * signal * (guided - true_guided).square()).mean()
    )
    return loss


def train_unet(
    work: Path, latents: torch.Tensor, tokenizer: Any, device: torch.device, *, steps: int, pairs: int
) -> nn.ModuleDict:
    """UNet and text encoder together, v-prediction."""
    torch.manual_seed(SEED + 1)
    unet = new_unet().to(device)
    text = new_text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id).to(device)
    ids = caption_ids(tokenizer)
    empty = tokenizer("", padding="max_length", max_length=CONTEXT, return_tensors="pt").input_ids[0]

    def loss_of(step: int) -> torch.Tensor:
        batch = noisy_batch(latents, ids, step, pairs)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            states = text(torch.cat([batch.tokens, empty[None]]).to(device))[0]
            states = torch.cat([states[:-1], states[-1:].expand(pairs, -1, -1)])
            velocity = unet(*batch.twice(device), states).sample.float()
        return guided_loss(velocity, batch.target.repeat(2, 1, 1, 1).to(device), batch.signal.to(device))

    modules = nn.ModuleDict({"unet": unet, "text": text})
    modules.load_state_dict(run_stage("unet", work, modules, loss_of, steps=steps, rate=1e-3))
    return modules


def write_checkpoint(folder: Path, vae: Any, modules: nn.ModuleDict, tokenizer: Any, factor: float) -> None:
    """Save as a diffusers pipeline, fp16 weights."""
    from diffusers import StableDiffusionPipeline

    vae.register_to_config(scaling_factor=factor)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=modules["text"],
        tokenizer=tokenizer,
        unet=modules["unet"],
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to("cpu", torch.float16).save_pretrained(folder, safe_serialization=True)
    # transformers 5 saves a tokenizer.json alone; apps and older tools read CLIP's vocab.json and merges.txt.
    shutil.rmtree(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer")
    # As SD 1.x's own file says: some schedulers clip latents to [-1, 1] where the key is missing.
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "clip_sample": False}, indent=2) + "\n")
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)


def main() -> None:
    """Parse options and run the stages."""
    from transformers import CLIPTokenizer

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="states and the finished checkpoint go here")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--vae-steps", type=int, default=4_000)
    parser.add_argument("--vae-batch", type=int, default=8)
    parser.add_argument("--decoder-steps", type=int, default=1_500)
    parser.add_argument("--unet-steps", type=int, default=7_500)
    parser.add_argument("--unet-pairs", type=int, default=16)
    options = parser.parse_args()
    device = torch.device(options.device)
    options.work.mkdir(parents=True, exist_ok=True)
    write_tokenizer(options.work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(options.work / "tokenizer")
    vae = train_vae(options.work, device, steps=options.vae_steps, batch=options.vae_batch)
    latents, factor = encode_pictures(options.work, vae, device)
    modules = train_unet(
        options.work, latents, tokenizer, device, steps=options.unet_steps, pairs=options.unet_pairs
    )
    sharpen_decoder(options.work, vae, device, steps=options.decoder_steps, batch=options.vae_batch)
    write_checkpoint(options.work / "checkpoint", vae, modules, tokenizer, factor)
    print(f"wrote {options.work / 'checkpoint'}, scaling factor {factor:.4f}")


if __name__ == "__main__":
    main()
