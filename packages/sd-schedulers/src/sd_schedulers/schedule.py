"""The noise schedule that a network was trained with: how much noise when, and what the network is told.

Three forms: :class:`DDPMSchedule`, :class:`FlowSchedule`, :class:`EDMSchedule`. Each measures noise in its
own ``sigma``, the unit of diffusers' class of that form, and knows what a latent is made of there (its
:class:`~sd_schedulers.prediction.Level`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sd_schedulers.betas import cumulative_product, read_betas, with_zero_terminal_snr
from sd_schedulers.errors import ScheduleError
from sd_schedulers.prediction import PREDICTIONS, Float32, Flow, Level, Preconditioned, Prediction
from sd_schedulers.settings import Settings

#: The last sigma of a zero terminal SNR, where diffusers sets ``a_t = 2**-24`` to keep it finite.
LARGEST_SIGMA: Final = 4096.0

_FLOW_CLASSES: Final = ("FlowMatchEulerDiscreteScheduler",)
_EDM_CLASSES: Final = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")


@runtime_checkable
class NoiseSchedule(Protocol):
    """A noise schedule, what the network predicts, and the config that both were read from."""

    settings: Settings
    prediction: Prediction

    @property
    def num_train_timesteps(self) -> int:
        """Number of timesteps that the network was trained on."""

    def level(self, sigma: float) -> Level:
        """What a latent is made of at noise level ``sigma``."""

    def timestep(self, sigma: float) -> float:
        """What the network is told at noise level ``sigma``."""

    def sigma(self, timestep: float) -> float:
        """The noise level at which the network is told ``timestep``: the inverse of :meth:`timestep`."""

    def network_input(self, latent: Float32, *, at: Level) -> Float32:
        """``latent``, which is at level ``at``, in the scale that the network was trained on."""

    @staticmethod
    def from_config(config: Mapping[str, object]) -> NoiseSchedule:
        """Read a diffusers ``scheduler_config.json``, whichever scheduler it was written for.

        A flow-matching form where the config names such a class, has ``use_flow_sigmas`` or a
        ``prediction_type`` of ``flow_prediction``; EDM's where it names one of its classes; else DDPM's.

        Raises:
            ScheduleError: a value makes no sense.
        """
        settings = Settings(dict(config))
        name = settings.get("_class_name", "")
        if name in _EDM_CLASSES:
            return EDMSchedule.read(settings)
        flows = settings.flag("use_flow_sigmas", default=False)
        if name in _FLOW_CLASSES or flows or settings.get("prediction_type", "") == Flow().name:
            return FlowSchedule.read(settings)
        return DDPMSchedule.read(settings)


@dataclass(frozen=True, slots=True)
class DDPMSchedule(NoiseSchedule):
    """The forward process ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise`` of DDPM.

    ``alphas_cumprod``: ``a_t``, ``(num_train_timesteps,)`` float32, decreasing, read-only; index 0 is the
    least noise. ``sigma_t = sqrt((1 - a_t) / a_t)`` is the noise level after dividing by ``sqrt(a_t)``, which
    is the unit of k-diffusion, Euler and DPM-Solver.
    """

    alphas_cumprod: Float32
    prediction: Prediction
    zero_terminal_snr: bool
    settings: Settings

    @classmethod
    def read(cls, settings: Settings) -> DDPMSchedule:
        """From a config.

        Raises:
            ScheduleError: a value makes no sense, or leaves no noise at the start or no signal at the end.
        """
        prediction = settings.choice("prediction_type", "epsilon", ("epsilon", "v_prediction", "sample"))
        zero_terminal_snr = settings.flag("rescale_betas_zero_snr", default=False)
        betas = read_betas(settings)
        if zero_terminal_snr:
            betas = with_zero_terminal_snr(betas)
        alphas = cumulative_product(np.float32(1) - betas)
        _refuse_extremes(alphas, zero_terminal_snr=zero_terminal_snr)
        alphas.setflags(write=False)
        return cls(alphas, PREDICTIONS[prediction], zero_terminal_snr, settings)

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

    def level(self, sigma: float) -> Level:
        """The variance-preserving level of ``x_0 + sigma noise``."""
        return Level.variance_preserving(1 / (sigma**2 + 1))

    def timestep(self, sigma: float) -> float:
        """A fractional timestep: linear in log sigma between the levels of the table."""
        return float(self.timesteps_of(np.array([sigma]))[0])

    def sigma(self, timestep: float) -> float:
        """That of the table; linear in its logarithm between two timesteps."""
        table = np.log(self.sigmas())
        return math.exp(float(np.interp(timestep, np.arange(len(table)), table)))

    def timesteps_of(self, sigmas: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """:meth:`timestep` of many, with diffusers' rounding: some schedulers cut the fraction off."""
        table = np.log(self.sigmas())
        logs = np.log(np.maximum(sigmas, 1e-10))
        low = np.clip(np.searchsorted(table, logs, side="right") - 1, 0, len(table) - 2)
        weight = np.clip((table[low] - logs) / (table[low] - table[low + 1]), 0, 1)
        timesteps: npt.NDArray[np.float64] = (1 - weight) * low + weight * (low + 1)
        return timesteps

    def network_input(self, latent: Float32, *, at: Level) -> Float32:
        """At variance 1."""
        return latent / math.sqrt(at.power)


@dataclass(frozen=True, slots=True)
class FlowSchedule(NoiseSchedule):
    """The straight line ``x = (1 - sigma) x_0 + sigma noise`` of flow matching, ``sigma`` from 0 to 1.

    Source: arXiv 2210.02747 (Flow Matching); arXiv 2403.03206 (Stable Diffusion 3), section 5.3.2, for the
    shift to more noise.
    """

    count: int
    prediction: Prediction
    settings: Settings

    @classmethod
    def read(cls, settings: Settings) -> FlowSchedule:
        """From a config.

        Raises:
            ScheduleError: a value makes no sense, or the network does not predict the flow.
        """
        count = settings.count("num_train_timesteps", 1000, low=2, high=1_000_000)
        flow = Flow()
        settings.choice("prediction_type", flow.name, (flow.name,))
        return cls(count, flow, settings)

    @property
    def num_train_timesteps(self) -> int:
        """The timestep of pure noise."""
        return self.count

    def level(self, sigma: float) -> Level:
        """``(1 - sigma, sigma)``."""
        return Level(1 - sigma, sigma)

    def timestep(self, sigma: float) -> float:
        """In proportion to ``sigma``."""
        return sigma * self.num_train_timesteps

    def sigma(self, timestep: float) -> float:
        """In proportion to ``timestep``."""
        return timestep / self.num_train_timesteps

    def network_input(self, latent: Float32, *, at: Level) -> Float32:
        """Where ``alpha`` and ``sigma`` make 1."""
        return latent / (at.alpha + at.sigma)


@dataclass(frozen=True, slots=True)
class EDMSchedule(NoiseSchedule):
    """``x_0 + sigma noise`` with EDM's preconditioning: the network sees ``c_in x`` and ``log(sigma) / 4``.

    Source: arXiv 2206.00364 (Elucidating the Design Space of Diffusion-Based Generative Models), table 1.
    """

    sigma_data: float
    count: int
    prediction: Prediction
    settings: Settings

    @classmethod
    def read(cls, settings: Settings) -> EDMSchedule:
        """From a config.

        Raises:
            ScheduleError: a value makes no sense.
        """
        data = settings.number("sigma_data", 0.5, low=1e-10, high=1e10)
        name = settings.choice("prediction_type", "epsilon", ("epsilon", "v_prediction"))
        count = settings.count("num_train_timesteps", 1000, low=2, high=1_000_000)
        return cls(data, count, Preconditioned(name, data), settings)

    @property
    def num_train_timesteps(self) -> int:
        """What the config states; the network knows noise levels only."""
        return self.count

    def level(self, sigma: float) -> Level:
        """``(1, sigma)``."""
        return Level(1.0, sigma)

    def timestep(self, sigma: float) -> float:
        """``c_noise``."""
        return 0.25 * math.log(sigma)

    def sigma(self, timestep: float) -> float:
        """``exp(4 c_noise)``."""
        return math.exp(4 * timestep)

    def network_input(self, latent: Float32, *, at: Level) -> Float32:
        """``c_in x``."""
        return latent / math.hypot(at.sigma, self.sigma_data)


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
