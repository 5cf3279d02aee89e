"""The denoiser that a sampler sees: the UNet with its conditions and guidance folded in.

Legend: B batch of the UNet's ports, n rows to predict, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sd_runtime.model import LoadedModel

Float: TypeAlias = npt.NDArray[np.float32]
#: (latent (1, C, H, W), timestep) -> the network's prediction, (1, C, H, W)
Denoiser: TypeAlias = Callable[[Float, float], Float]
#: predictions (n, C, H, W), one for each row of the conditions -> the one to follow, (1, C, H, W)
Guide: TypeAlias = Callable[[Float], Float]

#: Where a UNet that a ControlNet may steer takes its residuals.
RESIDUAL = "additional_residual_"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the denoiser is told, a row for each prediction that the guide combines.

    Shapes:
        rows: by the name of the input, (n, ...).
        beside: (n, K, H, W), joined to the latent over the channels; None for text to image.
    """

    rows: Mapping[str, Float]
    beside: Float | None
    guide: Guide


def unguided(predictions: Float) -> Float:
    """The one prediction there is."""
    return predictions


def classifier_free(guidance_scale: float) -> Guide:
    """Rows are [negative, positive].

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598, eq. 6, with
    ``guidance_scale = 1 + w`` as in diffusers.
    """

    def guide(predictions: Float) -> Float:
        negative, positive = predictions[:1], predictions[1:]
        guided: Float = negative + np.float32(guidance_scale) * (positive - negative)
        return guided

    return guide


def instructed(guidance_scale: float, image_guidance_scale: float) -> Guide:
    """Rows are [text and picture, picture alone, neither], in diffusers' order.

    Source: Brooks et al., "InstructPix2Pix", arXiv 2211.09800, eq. 3.
    """

    def guide(predictions: Float) -> Float:
        text, picture, neither = predictions[:1], predictions[1:2], predictions[2:]
        by_text = np.float32(guidance_scale) * (text - picture)
        guided: Float = neither + by_text + np.float32(image_guidance_scale) * (picture - neither)
        return guided

    return guide


def guided_denoiser(unet: LoadedModel, conditions: Conditions) -> Denoiser:
    """``unet`` under ``conditions``; residual inputs, which a ControlNet would fill, get zeros."""
    count = len(conditions.rows["encoder_hidden_states"])
    residuals = {
        port.name: np.zeros(port.shape, np.float32)
        for port in unet.component.inputs
        if port.name.startswith(RESIDUAL)
    }

    def denoise(latent: Float, timestep: float) -> Float:
        sample = np.repeat(latent, count, axis=0)
        if conditions.beside is not None:
            sample = np.concatenate([sample, conditions.beside], axis=1)
        rows = {"sample": sample, "timestep": np.full(count, timestep, np.float32), **conditions.rows}
        return conditions.guide(predict_rows(unet, rows, residuals))

    return denoise


def predict_rows(unet: LoadedModel, rows: Mapping[str, Float], residuals: Mapping[str, Float]) -> Float:
    """Predictions (n, C, H, W) for n rows, in calls of the B rows that the UNet's ports have.

    The last call is filled up with copies of its last row, whose results are dropped.
    """
    batch, count = unet.input("sample").shape[0], len(rows["sample"])
    calls = []
    for start in range(0, count, batch):
        filled = {name: _filled(values[start : start + batch], batch) for name, values in rows.items()}
        calls.append(unet.predict("noise_pred", **filled, **residuals)[: count - start])
    return np.concatenate(calls)


def _filled(rows: Float, batch: int) -> Float:
    """``rows``, then copies of the last one: what fills a call must not be what could overflow."""
    return np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
