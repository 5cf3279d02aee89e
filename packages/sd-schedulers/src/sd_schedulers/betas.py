"""The betas of DDPM: how much noise each training step adds.

Source: arXiv 2006.11239 (DDPM), section 4; arXiv 2102.09672 (Improved DDPM), eq. 17, for the cosine; the
other two are diffusers'. arXiv 2305.08891 (Common Diffusion Noise Schedules are Flawed), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import Float32
from sd_schedulers.settings import Settings

BETA_SCHEDULES: Final = ("linear", "scaled_linear", "squaredcos_cap_v2", "exp", "laplace", "sigmoid")

#: What a config that leaves them out means: ``beta_start``, ``beta_end`` and ``beta_schedule``, by the class
#: that it names. Source: the constructors in diffusers' schedulers.
_DDPM_DEFAULTS: Final = (0.0001, 0.02, "linear")
_LATENT_DEFAULTS: Final = (0.00085, 0.012, "linear")
_DEFAULTS: Final = {
    "LCMScheduler": (0.00085, 0.012, "scaled_linear"),
    "TCDScheduler": (0.00085, 0.012, "scaled_linear"),
    "HeunDiscreteScheduler": _LATENT_DEFAULTS,
    "KDPM2DiscreteScheduler": _LATENT_DEFAULTS,
    "KDPM2AncestralDiscreteScheduler": _LATENT_DEFAULTS,
    "DPMSolverSDEScheduler": _LATENT_DEFAULTS,
}


def read_betas(settings: Settings) -> Float32:
    """The betas of a config, ``(num_train_timesteps,)``, before any rescaling.

    Raises:
        ScheduleError: they cannot be read.
    """
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
        case "sigmoid":
            ramp = _linspace(-6, 6, count)
            return np.float32(end - start) / (np.float32(1) + np.exp(-ramp)) + np.float32(start)
        case name:
            return _betas_of_signal(_SIGNALS[name], count)


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
            f"and values from {betas.min(initial=0)} to {betas.max(initial=0)}"
        )
    return betas


def _cosine(time: float) -> float:
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


def _exponential(time: float) -> float:
    return math.exp(-12 * time)


def _laplace(time: float) -> float:
    log_snr = -0.5 * math.copysign(1, 0.5 - time) * math.log(1 - 2 * abs(0.5 - time) + 1e-6)
    return math.sqrt(math.exp(log_snr) / (1 + math.exp(log_snr)))


#: ``alpha_cumprod`` as a function of time from 0 to 1.
_SIGNALS: Final[dict[str, Callable[[float], float]]] = {
    "squaredcos_cap_v2": _cosine,
    "exp": _exponential,
    "laplace": _laplace,
}


def _betas_of_signal(signal: Callable[[float], float], count: int, *, max_beta: float = 0.999) -> Float32:
    kept = np.array([signal(index / count) for index in range(count + 1)])
    betas: Float32 = np.minimum(1 - kept[1:] / kept[:-1], max_beta).astype(np.float32)
    return betas


def with_zero_terminal_snr(betas: Float32) -> Float32:
    """``betas`` shifted and scaled so that nothing of the signal is left at the last timestep."""
    roots = np.sqrt(cumulative_product(np.float32(1) - betas))
    roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
    kept = np.square(roots)
    rescaled: Float32 = np.float32(1) - np.concatenate([kept[:1], kept[1:] / kept[:-1]])
    return rescaled


def cumulative_product(alphas: Float32) -> Float32:
    """Accumulated in float64 and stored in float32, as torch does."""
    product: Float32 = np.cumprod(alphas, dtype=np.float64).astype(np.float32)
    return product
