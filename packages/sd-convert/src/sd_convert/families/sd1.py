"""Stable Diffusion 1. Source: the configs of stable-diffusion-v1-5 in diffusers format."""

from __future__ import annotations

from typing import Final

from .family import CLIP_PAD, Encoder, Family

PNDM: Final = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}
OPENRAIL: Final = "OpenRAIL (https://huggingface.co/spaces/CompVis/stable-diffusion-license)"
_HEADS: Final = 8  # at every width

SD1: Final = Family(
    name="sd1",
    title="Stable Diffusion 1",
    license=OPENRAIL,
    hidden_states="last_hidden_state",
    time_ids="none",
    linear_projection=False,
    heads=lambda _: _HEADS,
    encoders=(Encoder("text_encoder", 768, CLIP_PAD, "cond_stage_model.transformer.", "clip"),),
    pipeline="StableDiffusion",
    sample_size=64,
    scaling_factor=0.18215,
    scheduler=PNDM,
)
