"""Stable Diffusion 2. Source: the configs of stabilityai's stable-diffusion-2 and 2-1 in diffusers format."""

from __future__ import annotations

from typing import Final

from .family import OPEN_CLIP_PAD, Encoder, Family, Prediction, heads_by_width
from .sd1 import OPENRAIL, PNDM

_LATENT_CHANNELS: Final = 4
_BASE_STEPS: Final = 875000


def _prediction(steps: int | None, channels: int) -> Prediction:
    """diffusers' rule: 875000 steps are those of the 512-pixel base model (epsilon), others not.

    Without them 768 pixels are assumed, as diffusers does, except for inpainting, whose published models
    predict epsilon.
    """
    if channels != _LATENT_CHANNELS or steps == _BASE_STEPS:
        return Prediction("epsilon")
    note = None
    if steps is None:
        note = (
            "the file does not say what its SD 2 UNet predicts: v_prediction is assumed, as of 768-pixel "
            "models; --prediction-type epsilon is for 512-pixel ones and SD Turbo"
        )
    return Prediction("v_prediction", note=note)


SD2: Final = Family(
    name="sd2",
    title="Stable Diffusion 2",
    license=OPENRAIL,
    hidden_states="last_hidden_state",
    time_ids="none",
    linear_projection=True,
    heads=heads_by_width,
    encoders=(
        Encoder("text_encoder", 1024, OPEN_CLIP_PAD, "cond_stage_model.model.", "open_clip_penultimate"),
    ),
    pipeline="StableDiffusion",
    sample_size=64,
    sample_size_v=96,
    scaling_factor=0.18215,
    scheduler=PNDM,
    unsaid_prediction=_prediction,
)
