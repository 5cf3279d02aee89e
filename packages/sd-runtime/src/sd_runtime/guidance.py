"""The denoiser that a sampler sees: the UNet with its conditioning and classifier-free guidance folded in.

Legend: B batch of the UNet's ports, n rows to predict, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sd_runtime.model import LoadedModel

Float: TypeAlias = npt.NDArray[np.float32]
#: (latent (1, C, H, W), timestep) -> the network's prediction, (1, C, H, W)
Denoiser: TypeAlias = Callable[[Float, float], Float]


def is_guided(guidance_scale: float) -> bool:
    """Whether the negative prompt plays a part: above 1, as in diffusers."""
    return guidance_scale > 1.0


def guided_denoiser(unet: LoadedModel, states: Float, *, guidance_scale: float) -> Denoiser:
    """``unet`` under ``states``: (2, C, 1, S) of [negative, positive] if guided, (1, C, 1, S) otherwise.

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598, eq. 6, with
    ``guidance_scale = 1 + w`` as in diffusers.
    """

    def denoise(latent: Float, timestep: float) -> Float:
        predictions = predict_rows(unet, np.repeat(latent, len(states), axis=0), timestep, states)
        if not is_guided(guidance_scale):
            return predictions
        negative, positive = predictions[:1], predictions[1:]
        return negative + np.float32(guidance_scale) * (positive - negative)

    return denoise


def predict_rows(unet: LoadedModel, latents: Float, timestep: float, states: Float) -> Float:
    """Predictions (n, C, H, W) for n rows, in calls of the B rows that the UNet's ports have.

    The last call is filled up with copies of its last row, whose results are dropped.
    """
    batch = unet.input("sample").shape[0]
    calls = [
        _predict(unet, latents[start : start + batch], timestep, states[start : start + batch], batch)
        for start in range(0, len(latents), batch)
    ]
    return np.concatenate(calls)


def _predict(unet: LoadedModel, latents: Float, timestep: float, states: Float, batch: int) -> Float:
    rows = len(latents)
    return unet.predict(
        "noise_pred",
        sample=_filled(latents, batch),
        timestep=np.full(unet.input("timestep").shape, timestep, dtype=np.float32),
        encoder_hidden_states=_filled(states, batch),
    )[:rows]


def _filled(rows: Float, batch: int) -> Float:
    """``rows``, then copies of the last one: what fills a call must not be what could overflow."""
    return np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
