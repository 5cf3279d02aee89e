"""SDXL's refiner. Source: stabilityai's stable-diffusion-xl-refiner-1.0 in diffusers format."""

from __future__ import annotations

from typing import Final

from .family import OPEN_CLIP_PAD, Encoder, Family, heads_by_width
from .sdxl import BIG_G_WIDTH, EULER, OPENRAIL_PLUS

SDXL_REFINER: Final = Family(
    name="sdxl-refiner",
    title="the SDXL refiner",
    license=OPENRAIL_PLUS,
    hidden_states="hidden_embeds",
    time_ids="aesthetic_score",
    linear_projection=None,
    heads=heads_by_width,
    encoders=(
        Encoder("text_encoder_2", BIG_G_WIDTH, OPEN_CLIP_PAD, "conditioner.embedders.0.model.", "open_clip"),
    ),
    pipeline="StableDiffusionXL",
    alone="Img2Img",
    sample_size=128,
    scaling_factor=0.13025,
    scheduler=EULER,
    index={"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True},
)
