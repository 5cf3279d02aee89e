"""What a latent will look like, without the decoder: colours as a linear function of its channels.

Legend: C channels of the latent, h w of the latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import VaeFacts

Float: TypeAlias = npt.NDArray[np.float32]


#: How a latent can be shown: by the tiny VAE of the bundle, by its colours, or by the decoder of pictures.
PREVIEWS: Final = ("tiny-vae", "rgb", "vae")


@dataclass(frozen=True, slots=True)
class LatentColours:
    """``factors`` (C, 3) and ``bias`` (3,): a latent as it is diffused to RGB, nominally in [-1, 1]."""

    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)


#: By the scaling factor that tells the VAEs of Stable Diffusion 1 and 2 and of SDXL from others.
#: Source: ComfyUI, comfy/latent_formats.py (``SD15``, ``SDXL``: ``latent_rgb_factors`` and their bias).
COLOURS: Final[dict[float, LatentColours]] = {
    0.18215: LatentColours(
        (
            (0.3512, 0.2297, 0.3227),
            (0.3250, 0.4974, 0.2350),
            (-0.2829, 0.1762, 0.2721),
            (-0.2120, -0.2616, -0.7177),
        )
    ),
    0.13025: LatentColours(
        (
            (0.3651, 0.4232, 0.4341),
            (-0.2533, -0.0042, 0.1068),
            (0.1076, 0.1111, -0.0362),
            (-0.3165, -0.2492, -0.2188),
        ),
        (0.1084, -0.0175, -0.0011),
    ),
}


def colours_of(vae: VaeFacts, channels: int) -> LatentColours | None:
    """The published colours of the latents of ``vae``; None where there are none."""
    known = COLOURS.get(vae.scaling_factor)
    return known if known is not None and vae.shift_factor == 0 and channels == len(known.factors) else None


def latent_to_rgb(latent: Float, colours: LatentColours) -> npt.NDArray[np.uint8]:
    """``latent`` (1, C, h, w), as it is diffused, to pixels (h, w, 3) in 0..255.

    Source: ComfyUI, latent_preview.py (``Latent2RGBPreviewer``, ``preview_to_image``).
    """
    factors, bias = np.asarray(colours.factors, np.float32), np.asarray(colours.bias, np.float32)
    signed = np.einsum("chw,cr->hwr", latent[0], factors) + bias
    pixels: npt.NDArray[np.uint8] = (np.clip((signed + 1) / 2, 0, 1) * 255).astype(np.uint8)
    return pixels
