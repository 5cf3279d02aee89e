"""Inputs of the kind that a network sees when it draws, from a seed.

Inputs that a network never sees hide errors or invent them: attention over tokens that are all alike, or
latents of the wrong size, says little about pictures.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .kind import Drawing

_PATCH: Final = 8  # pixels of one colour, along each side
_PROMPT_TOKENS: Final = 12
_AESTHETIC_SCORES: Final = (2.5, 6.0)  # of the negative and of the positive prompt, as in diffusers
_GUIDANCE: Final = 8.0
_CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


def noisy_latents(drawing: Drawing, shape: Shape) -> Array:
    """Standard normal, as latents are at the start of sampling; a mask beside them has zeros and ones."""
    sample = drawing.noise(shape)
    if drawing.facts.unet.task.has_mask:
        mask = shape[1] // 2
        sample[:, mask] = sample[:, mask] > 0
    return sample


def timesteps(drawing: Drawing, shape: Shape) -> Array:
    """For each row one of the scheduler's."""
    return drawing.generator.integers(0, drawing.facts.train_timesteps, shape)


def time_ids(drawing: Drawing, shape: Shape) -> Array:
    """Original height and width, where it was cropped, then the target's size or an aesthetic score."""
    sample, factor = drawing.shapes["sample"], drawing.facts.vae.factor
    height, width = (size * factor for size in sample[2:])
    if drawing.facts.unet.time_ids == "size":
        return np.array([[height, width, 0, 0, height, width]] * shape[0])
    scores = _AESTHETIC_SCORES[-shape[0] :]
    return np.array([[height, width, 0, 0, score] for score in scores])


def embedded_guidance(_: Drawing, shape: Shape) -> Array:
    """The guidance scale as latent consistency models are told it.

    Source: ``get_guidance_scale_embedding`` in diffusers' pipeline_latent_consistency_text2img.py.
    """
    batch, width = shape
    half = width // 2
    angles = 1000 * (_GUIDANCE - 1) * np.exp(-np.log(10000) * np.arange(half) / max(half - 1, 1))
    embedding = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2)])
    return np.tile(embedding, (batch, 1))


def latents(drawing: Drawing, shape: Shape) -> Array:
    """Standard normal divided by the scaling factor."""
    return drawing.noise(shape) / drawing.facts.vae.scaling_factor


def image(drawing: Drawing, shape: Shape) -> Array:
    """Patches of colour with a little noise in [-1, 1], BCHW."""
    batch, channels, height, width = shape
    rows, columns = -(-height // _PATCH), -(-width // _PATCH)
    colours = drawing.generator.uniform(-1, 1, (batch, channels, rows, columns))
    patches = colours.repeat(_PATCH, axis=2).repeat(_PATCH, axis=3)[:, :, :height, :width]
    return np.clip(patches + 0.05 * drawing.noise(shape), -1, 1)


def drawn_images(drawing: Drawing, shape: Shape) -> Array:
    """The same in [0, 1], BHWC."""
    batch, height, width, channels = shape
    return np.moveaxis(image(drawing, (batch, channels, height, width)), 1, -1) / 2 + 0.5


def clip_input(drawing: Drawing, shape: Shape) -> Array:
    """The same normalised for CLIP, BCHW."""
    mean, deviation = (np.reshape(numbers, (1, -1, 1, 1)) for numbers in (_CLIP_MEAN, _CLIP_DEVIATION))
    normal: Array = (image(drawing, shape) / 2 + 0.5 - mean) / deviation
    return normal


def shares(drawing: Drawing, shape: Shape) -> Array:
    """Numbers from 0 to 1."""
    return drawing.generator.random(shape)


def zeros(_: Drawing, shape: Shape) -> Array:
    """Nothing."""
    return np.zeros(shape)


def prompt(drawing: Drawing, shape: Shape, *, encoder: str) -> Array:
    """A start, a dozen random tokens, an end, padding; CLIP's vocabularies have the start before the end."""
    end = drawing.facts.text_encoder(encoder).end_token
    length = min(_PROMPT_TOKENS, max(shape[1] - 2, 0))
    ids = np.full(shape, 0 if drawing.facts.family.pads_with_zero(encoder) else end)
    ids[:, 0] = end - 1
    ids[:, 1 : 1 + length] = drawing.generator.integers(0, end - 1, (shape[0], length))
    ids[:, 1 + length : 2 + length] = end
    return ids
