"""What a network's output says about the clean latent and about the noise.

A noisy latent is ``alpha x_0 + sigma noise``. What a network predicts of the two is a :class:`Prediction`;
:data:`PREDICTIONS` are those that diffusers' configs name. Everything here is written so that no two large
terms cancel, also where next to no signal is left.

Source: arXiv 2202.00512 (Progressive Distillation), appendix D, for v; arXiv 2010.02502 (DDIM), eq. 12;
arXiv 2209.03003 (Rectified Flow), eq. 1; arXiv 2206.00364 (EDM), table 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Float32: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Level:
    """How much of the clean latent (``alpha``) and of unit noise (``sigma``) a noisy latent is made of."""

    alpha: float
    sigma: float

    @classmethod
    def variance_preserving(cls, alpha_cumprod: float) -> Level:
        """``alpha**2 + sigma**2 = 1``: the scale of DDPM, which the networks are trained on."""
        return cls(math.sqrt(alpha_cumprod), math.sqrt(1 - alpha_cumprod))

    @property
    def power(self) -> float:
        """Variance of the noisy latent where the clean one has variance 1."""
        return self.alpha**2 + self.sigma**2

    @property
    def log_snr(self) -> float:
        """``log(alpha / sigma)``, lambda in the papers of DPM-Solver; infinite where one of the two is 0."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha else -math.inf


class Prediction(Protocol):
    """What a network was trained to output, as functions of the output and of what the network saw.

    ``output`` and ``latent`` have one shape; ``latent`` is at level ``at``, in the solver's scale.
    """

    @property
    def name(self) -> str:
        """As ``prediction_type`` of a config has it."""

    def denoised(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """The clean latent that ``output`` implies."""

    def noise(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """The unit noise that ``output`` implies."""


@dataclass(frozen=True, slots=True)
class Epsilon:
    """The noise itself."""

    name: str = "epsilon"

    def denoised(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """``(x - sigma output) / alpha``."""
        return divided(latent - at.sigma * output, at.alpha)

    def noise(self, output: Float32, latent: Float32, *, at: Level) -> Float32:  # noqa: ARG002
        """``output``."""
        return output


@dataclass(frozen=True, slots=True)
class VPrediction:
    """``v = (alpha noise - sigma x_0) / sqrt(alpha**2 + sigma**2)``."""

    name: str = "v_prediction"

    def denoised(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """The projection of the pair ``(x, v)`` on the clean latent."""
        return at.alpha / at.power * latent - at.sigma / math.sqrt(at.power) * output

    def noise(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """The projection of the pair ``(x, v)`` on the noise."""
        return at.sigma / at.power * latent + at.alpha / math.sqrt(at.power) * output


@dataclass(frozen=True, slots=True)
class Sample:
    """The clean latent itself."""

    name: str = "sample"

    def denoised(self, output: Float32, latent: Float32, *, at: Level) -> Float32:  # noqa: ARG002
        """``output``."""
        return output

    def noise(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """``(x - alpha output) / sigma``."""
        return divided(latent - at.alpha * output, at.sigma)


@dataclass(frozen=True, slots=True)
class Flow:
    """The velocity ``noise - x_0`` of the straight line between the two."""

    name: str = "flow_prediction"

    def denoised(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """``(x - sigma output) / (alpha + sigma)``; the divisor is 1 in the network's own scale."""
        return divided(latent - at.sigma * output, at.alpha + at.sigma)

    def noise(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """``(x + alpha output) / (alpha + sigma)``."""
        return divided(latent + at.alpha * output, at.alpha + at.sigma)


@dataclass(frozen=True, slots=True)
class Preconditioned:
    """EDM's ``c_skip x + c_out output`` for data of standard deviation ``sigma_data`` (``alpha`` is 1).

    With ``v_prediction`` the network's sign is the other one; with both, the part of ``x`` that is clean is
    not predicted but known.
    """

    name: str
    sigma_data: float

    def denoised(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """The clean latent."""
        power = at.sigma**2 + self.sigma_data**2
        scale = at.sigma * self.sigma_data / math.sqrt(power)
        return (
            self.sigma_data**2 / power * latent + (-scale if self.name == "v_prediction" else scale) * output
        )

    def noise(self, output: Float32, latent: Float32, *, at: Level) -> Float32:
        """What is left of ``x`` without the clean latent, as unit noise."""
        return divided(latent - self.denoised(output, latent, at=at), at.sigma)


#: The predictions of diffusers' configs, by their name there.
PREDICTIONS: Mapping[str, Prediction] = MappingProxyType(
    {kind.name: kind for kind in (Epsilon(), VPrediction(), Sample(), Flow())}
)


def mix(clean: Float32, unit_noise: Float32, *, at: Level) -> Float32:
    """``alpha clean + sigma noise``."""
    return at.alpha * clean + at.sigma * unit_noise


def divided(array: Float32, by: float) -> Float32:
    """``array / by`` in float32, without a Python division by zero."""
    quotient: Float32 = np.divide(array, by, dtype=np.float32)
    return quotient
