"""The trained demo checkpoint as diffusers opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sdc.demo.shipped import demo_checkpoint


def open_pipeline(folder: Path | None) -> Any:
    """The diffusers pipeline of a folder, or of the checkpoint that ships with sdc, in fp32."""
    from diffusers import StableDiffusionPipeline

    options: dict[str, Any] = {
        "safety_checker": None,
        "feature_extractor": None,
        "torch_dtype": torch.float32,
    }
    if folder is not None:
        return StableDiffusionPipeline.from_pretrained(folder, **options)
    with demo_checkpoint() as shipped:
        return StableDiffusionPipeline.from_pretrained(shipped, **options)


@torch.no_grad()
def hidden_states(text: Any, tokens: torch.Tensor) -> torch.Tensor:
    """What the text encoder says of tokens (B, 77), and of the empty caption for each: (2B, 77, width)."""
    states: torch.Tensor = text(tokens)[0]
    return torch.cat([states[:-1], states[-1:].expand(len(states) - 1, -1, -1)])
