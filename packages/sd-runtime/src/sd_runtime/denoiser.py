"""The denoiser that a sampler sees: the UNet with its conditions, guidance and steering folded in.

Legend: B batch of the UNet's ports, n rows to predict, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sd_runtime.conditioning.conditions import Conditions
from sd_runtime.conditioning.residuals import zero_residuals
from sd_runtime.model import LoadedModel

Float: TypeAlias = npt.NDArray[np.float32]
#: (latent (1, C, H, W), timestep) -> the network's prediction, (1, C, H, W)
Denoiser: TypeAlias = Callable[[Float, float], Float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The UNet is about to run: the ``index``-th time, from 0, of ``total`` for the picture.

    ``inputs``: what it will be given, by the name of its input, (n, ...). ``is_negative``: for each row,
    whether guidance moves away from it.
    """

    inputs: Mapping[str, Float]
    is_negative: tuple[bool, ...]
    index: int
    total: int


#: An evaluation -> more of the UNet's inputs, (n, ...) too: the residuals of a ControlNet or an adapter.
#: Those that are left out get zeros.
Steer: TypeAlias = Callable[[Evaluation], Mapping[str, Float]]


def unsteered(_: Evaluation) -> Mapping[str, Float]:
    """Nothing is added."""
    return {}


def guided_denoiser(
    unet: LoadedModel,
    conditions: Conditions,
    steer: Steer = unsteered,
    *,
    total: int = 0,
    guided: tuple[float, float] = (0.0, 1.0),
) -> Denoiser:
    """``unet`` under ``conditions``, for one picture.

    ``steer`` is asked at each of ``total`` evaluations for the inputs that it has to give. ``guided`` is the
    part of them, from and to, in which there is guidance; outside, the positive row alone is predicted.
    """
    start, end = guided
    alone = conditions.positive()
    zeros = zero_residuals(unet.component.inputs)
    index = -1

    def denoise(latent: Float, timestep: float) -> Float:
        nonlocal index
        index += 1
        given = conditions if not total or start <= index / total < end else alone
        count = len(given.is_negative)
        sample = np.repeat(latent, count, axis=0)
        if given.extra_channels is not None:
            sample = np.concatenate([sample, given.extra_channels], axis=1)
        rows = {"sample": sample, "timestep": np.full(count, timestep, np.float32), **given.rows}
        rows |= steer(Evaluation(rows, given.is_negative, index, total))
        fixed = {name: array for name, array in zeros.items() if name not in rows}
        return given.guide(predict_rows(unet, ["noise_pred"], rows, fixed)["noise_pred"])

    return denoise


def predict_rows(
    model: LoadedModel, outputs: Sequence[str], rows: Mapping[str, Float], fixed: Mapping[str, Float]
) -> dict[str, Float]:
    """``outputs``, (n, ...), for n rows, in calls of the B rows that the ports of ``model`` have.

    The last call is filled up with copies of its last row, whose results are dropped. ``fixed`` inputs have
    the shapes of their ports, and are the same in every call.
    """
    batch, count = model.input("sample").shape[0], len(rows["sample"])
    calls = []
    for start in range(0, count, batch):
        filled = {name: _filled(values[start : start + batch], batch) for name, values in rows.items()}
        results = model.predict_all(outputs, **filled, **fixed)
        calls.append({name: results[name][: count - start] for name in outputs})
    return {name: np.concatenate([call[name] for call in calls]) for name in outputs}


def _filled(rows: Float, batch: int) -> Float:
    """``rows``, then copies of the last one: what fills a call must not be what could overflow."""
    return np.concatenate([rows, np.repeat(rows[-1:], batch - len(rows), axis=0)])
