"""What a network's output says about the clean latent and about the noise.

A noisy latent is ``alpha x_0 + sigma noise``. The network predicts the noise (``epsilon``), the clean latent
(``sample``), or ``v = (alpha noise - sigma x_0) / sqrt(alpha**2 + sigma**2)``. Everything here is written so
that no two large terms cancel, also where next to no signal is left.

Source: arXiv 2202.00512 (Progressive Distillation), appendix D, for v; arXiv 2010.02502 (DDIM), eq. 12.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sd_schedulers.schedule import Float32, Prediction


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


def denoised(output: Float32, latent: Float32, *, at: Level, prediction: Prediction) -> Float32:
    """The clean latent that ``output`` implies."""
    match prediction:
        case "epsilon":
            return _divided(latent - at.sigma * output, at.alpha)
        case "v_prediction":
            return at.alpha / at.power * latent - at.sigma / math.sqrt(at.power) * output
        case "sample":
            return output


def noise(output: Float32, latent: Float32, *, at: Level, prediction: Prediction) -> Float32:
    """The unit noise that ``output`` implies."""
    match prediction:
        case "epsilon":
            return output
        case "v_prediction":
            return at.sigma / at.power * latent + at.alpha / math.sqrt(at.power) * output
        case "sample":
            return _divided(latent - at.alpha * output, at.sigma)


def mix(clean: Float32, unit_noise: Float32, *, at: Level) -> Float32:
    """``alpha clean + sigma noise``."""
    return at.alpha * clean + at.sigma * unit_noise


def _divided(array: Float32, by: float) -> Float32:
    quotient: Float32 = np.divide(array, by, dtype=np.float32)
    return quotient
