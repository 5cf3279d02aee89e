"""Fine-tune the demo checkpoint's UNet in 2**nbits distinct values per weight, by distillation.

    uv run python tools/train_palettized.py --work ../runs/palettized --nbits 2

The UNet that it starts from is the teacher; the pictures are the trainer's. Writes a diffusers checkpoint in
``--work``/checkpoint, which any palettizer stores in ``nbits`` bits without loss. Run again, it resumes;
``--steps 0`` writes what k-means alone makes of the weights.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from demo_checkpoint.pipeline import hidden_states, open_pipeline
from demo_checkpoint.train import (
    CONTEXT,
    caption_ids,
    encode_pictures,
    guided_loss,
    noisy_batch,
    run_stage,
    write_checkpoint,
)
from sd_compress.training import finalize, prepare
from torch import nn


def distillation_loss(
    pipeline: Any, student: Any, latents: torch.Tensor, pairs: int
) -> Callable[[int], torch.Tensor]:
    """How far ``student`` is from the teacher on the pictures of a step, with a caption and without."""
    ids, device = caption_ids(pipeline.tokenizer), pipeline.device
    empty = pipeline.tokenizer("", padding="max_length", max_length=CONTEXT, return_tensors="pt").input_ids

    def loss_of(step: int) -> torch.Tensor:
        batch = noisy_batch(latents, ids, step, pairs)
        states = hidden_states(pipeline.text_encoder, torch.cat([batch.tokens, empty]).to(device))
        with torch.no_grad():
            target = pipeline.unet(*batch.twice(device), states).sample
        return guided_loss(student(*batch.twice(device), states).sample, target, batch.signal.to(device))

    return loss_of


def main() -> None:
    """Parse options, train, write the checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="states and the checkpoint go here")
    parser.add_argument(
        "--checkpoint", type=Path, help="diffusers folder; the one that ships with sdc if none"
    )
    parser.add_argument("--nbits", type=int, default=2)
    parser.add_argument(
        "--group-size", type=int, help="output channels to a table; one table a weight if none"
    )
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=16, help="pictures of each caption")
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate after the warm-up")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    pipeline = open_pipeline(options.checkpoint).to(options.device)
    pipeline.unet.eval().requires_grad_(False)
    factor = pipeline.vae.config.scaling_factor
    latents, own = encode_pictures(options.work, pipeline.vae, pipeline.device, per_caption=options.pictures)
    student = copy.deepcopy(pipeline.unet).requires_grad_(True)
    layers = prepare(student, nbits=options.nbits, group_size=options.group_size)
    loss_of = distillation_loss(pipeline, student, latents * (factor / own), options.pairs)
    modules = nn.ModuleDict({"unet": student})
    stage, rate = f"unet-{options.nbits}bit", options.rate
    # From the teacher's own weights a step is soon the right size; the trainer starts from nothing.
    averaged = run_stage(stage, options.work, modules, loss_of, steps=options.steps, rate=rate, warmup=30)
    modules.load_state_dict(averaged)
    finalize(student)
    trained = nn.ModuleDict({"unet": student, "text": pipeline.text_encoder})
    write_checkpoint(options.work / "checkpoint", pipeline.vae, trained, pipeline.tokenizer, factor)
    print(f"wrote {options.work / 'checkpoint'}: {len(layers)} layers of {options.nbits}-bit weights")


if __name__ == "__main__":
    main()
