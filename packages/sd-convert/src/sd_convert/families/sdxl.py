"""SDXL. Source: the configs of stabilityai's stable-diffusion-xl-base-1.0 in diffusers format."""

from __future__ import annotations

from typing import Final

from .family import CLIP_PAD, OPEN_CLIP_PAD, Encoder, Family, heads_by_width

EULER: Final = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
OPENRAIL_PLUS: Final = (
    "OpenRAIL++-M (https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md)"
)
BIG_G_WIDTH: Final = 1280

SDXL: Final = Family(
    name="sdxl",
    title="SDXL",
    license=OPENRAIL_PLUS,
    hidden_states="hidden_embeds",
    time_ids="size",
    linear_projection=None,
    heads=heads_by_width,
    encoders=(
        Encoder("text_encoder", 768, CLIP_PAD, "conditioner.embedders.0.transformer.", "clip"),
        Encoder("text_encoder_2", BIG_G_WIDTH, OPEN_CLIP_PAD, "conditioner.embedders.1.model.", "open_clip"),
    ),
    pipeline="StableDiffusionXL",
    sample_size=128,
    scaling_factor=0.13025,
    scheduler=EULER,
    index={"force_zeros_for_empty_prompt": True},
)
