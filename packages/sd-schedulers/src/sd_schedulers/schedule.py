"""The noise schedule: how much signal is left at each training timestep.

Notation: the forward process is ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise`` with ``a_t`` from
:attr:`NoiseSchedule.alphas_cumprod`; ``sigma_t = sqrt((1 - a_t) / a_t)`` is the noise level after dividing by
``sqrt(a_t)``, which is the unit of k-diffusion, Euler and DPM-Solver.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from sd_schedulers.errors import ScheduleError
from sd_schedulers.settings import Settings

Float32: TypeAlias = npt.NDArray[np.float32]
Prediction: TypeAlias = Literal["epsilon", "v_prediction", "sample"]

PREDICTIONS = ("epsilon", "v_prediction", "sample")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")

#: The last sigma of a zero terminal SNR, where diffusers sets ``a_t = 2**-24`` to keep it finite.
LARGEST_SIGMA = 4096.0


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """A noise schedule and the settings that samplers read from the same config.

    ``alphas_cumprod``: ``(num_train_timesteps,)`` float32, decreasing, read-only; index 0 is the least noise.
    """

    alphas_cumprod: Float32
    prediction: Prediction
    zero_terminal_snr: bool
    settings: Settings

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> NoiseSchedule:
        """Read a diffusers ``scheduler_config.json``, whichever scheduler it was written for.

        Raises:
            ScheduleError: a key is unknown, or a value is not supported.
        """
        settings = Settings(dict(config))
        prediction = settings.choice("prediction_type", "epsilon", PREDICTIONS)
        zero_terminal_snr = settings.flag("rescale_betas_zero_snr", default=False)
        betas = _betas(settings)
        if zero_terminal_snr:
            betas = _rescaled_to_zero_terminal_snr(betas)
        alphas = _cumprod(np.float32(1) - betas)
        _refuse_extremes(alphas, zero_terminal_snr=zero_terminal_snr)
        alphas.setflags(write=False)
        return cls(alphas, cast(Prediction, prediction), zero_terminal_snr, settings)

    @property
    def num_train_timesteps(self) -> int:
        """Length of the schedule."""
        return len(self.alphas_cumprod)

    def alpha_cumprod(self, timestep: int, *, beyond: float | None = None) -> float:
        """``a_t``; for a timestep below 0, ``beyond``, or ``a_0`` where that is None."""
        if timestep < 0 and beyond is not None:
            return beyond
        return float(self.alphas_cumprod[max(timestep, 0)])

    def sigmas(self) -> Float32:
        """Noise level of each timestep, ``(num_train_timesteps,)``, increasing and finite."""
        known = self.alphas_cumprod[:-1] if self.zero_terminal_snr else self.alphas_cumprod
        sigmas: Float32 = np.sqrt((np.float32(1) - known) / known)
        return np.append(sigmas, np.float32(LARGEST_SIGMA)) if self.zero_terminal_snr else sigmas


#: What a config that leaves them out means: ``beta_start``, ``beta_end`` and ``beta_schedule``, by the class
#: that it names. Source: the constructors in diffusers' schedulers.
_DDPM_DEFAULTS = (0.0001, 0.02, "linear")
_DEFAULTS = {
    "LCMScheduler": (0.00085, 0.012, "scaled_linear"),
    "TCDScheduler": (0.00085, 0.012, "scaled_linear"),
}


def _refuse_extremes(alphas: Float32, *, zero_terminal_snr: bool) -> None:
    """Samplers divide by the noise of the first timestep and by the signal of the last."""
    if not np.isfinite(alphas).all() or alphas[0] >= 1:
        raise ScheduleError(
            f"expected noise at the first timestep, got alpha_cumprod {alphas[0]}: raise beta_start "
            "(or the first of trained_betas)"
        )
    if not zero_terminal_snr and alphas[-1] < np.finfo(np.float32).tiny:
        raise ScheduleError(
            f"expected signal at the last timestep, got alpha_cumprod {alphas[-1]}: lower beta_end, "
            "trained_betas or num_train_timesteps"
        )


def _betas(settings: Settings) -> Float32:
    count = settings.count("num_train_timesteps", 1000, low=2, high=1_000_000)
    trained = settings.get("trained_betas", None)
    if trained is not None:
        return _trained_betas(trained, count)
    default_start, default_end, kind = _DEFAULTS.get(str(settings.get("_class_name", "")), _DDPM_DEFAULTS)
    start = settings.number("beta_start", default_start, low=0, high=0.999)
    end = settings.number("beta_end", default_end, low=start, high=0.999)
    match settings.choice("beta_schedule", kind, BETA_SCHEDULES):
        case "linear":
            return _linspace(start, end, count)
        case "scaled_linear":
            return np.square(_linspace(math.sqrt(start), math.sqrt(end), count))
        case _:
            return _cosine_betas(count)


def _linspace(start: float, end: float, count: int) -> Float32:
    """``torch.linspace`` to the last bit: from both ends to the middle by a float32 step, rounded once.

    The last bits matter: a zero terminal SNR makes a sigma of 4096 out of them.
    """
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(count - 1))
    index = np.arange(count)
    ramp: Float32 = np.where(
        index < count // 2, first + step * index, last - step * (count - 1 - index)
    ).astype(np.float32)
    return ramp


def _trained_betas(trained: object, count: int) -> Float32:
    try:
        betas = np.array(trained, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ScheduleError(f"expected trained_betas to be a list of numbers, got {error}") from error
    if betas.shape != (count,) or not ((betas >= 0) & (betas < 1)).all():
        raise ScheduleError(
            f"expected {count} trained_betas (num_train_timesteps) in [0, 1), got shape {betas.shape} "
            f"from {betas.min(initial=1)} to {betas.max(initial=0)}"
        )
    return betas


def _cosine_betas(count: int, *, max_beta: float = 0.999) -> Float32:
    """Source: arXiv 2102.09672 (Improved DDPM), eq. 17."""
    signal = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * math.pi / 2) ** 2
    betas: Float32 = np.minimum(1 - signal[1:] / signal[:-1], max_beta).astype(np.float32)
    return betas


def _rescaled_to_zero_terminal_snr(betas: Float32) -> Float32:
    """Source: arXiv 2305.08891 (Common Diffusion Noise Schedules are Flawed), algorithm 1."""
    roots = np.sqrt(_cumprod(np.float32(1) - betas))
    roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    kept = np.square(roots)
    rescaled: Float32 = np.float32(1) - np.concatenate([kept[:1], kept[1:] / kept[:-1]])
    return rescaled


def _cumprod(alphas: Float32) -> Float32:
    """Accumulated in float64 and stored in float32, as torch does."""
    product: Float32 = np.cumprod(alphas, dtype=np.float64).astype(np.float32)
    return product
