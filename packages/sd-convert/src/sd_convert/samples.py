"""Inputs of the kind that a network sees when it draws, from a seed.

Inputs that a network never sees hide errors or invent them: attention over tokens that are all alike, or
latents of the wrong size, says little about pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .checkpoint import Checkpoint
from .component import Component, PortSpec
from .facts import family, task, train_timesteps, vae_factor, vae_scaling_factor
from .metadata import RESIDUAL

_PATCH: Final = 8  # pixels of one colour, along each side
_PROMPT_TOKENS: Final = 12
_AESTHETIC_SCORES: Final = (2.5, 6.0)  # of the negative and of the positive prompt, as in diffusers
_GUIDANCE: Final = 8.0
_CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Source:
    """What the values of a component's ports are drawn from."""

    generator: np.random.Generator
    component: Component
    checkpoint: Checkpoint


Draw = Callable[[_Source, PortSpec], Array]


def sample_inputs(
    component: Component, checkpoint: Checkpoint, *, seed: int = 0
) -> Mapping[str, npt.NDArray[np.generic]]:
    """One array for each input port, in its shape and dtype; equal seeds give equal arrays.

    ``sample``: standard normal, as latents are at the start of sampling; beside them, for inpainting, a mask
    of zeros and ones. ``timestep``: for each row one of the scheduler's. ``encoder_hidden_states``,
    ``text_embeds``: standard normal, as a layer norm leaves them. ``time_ids``: of an image
    that was not cropped. ``timestep_cond``: the embedding of a guidance scale. ``additional_residual_i``:
    standard normal. ``z``: standard normal divided by the scaling factor. ``x``, ``images``, ``clip_input``:
    patches of colour with a little noise, in [-1, 1], in [0, 1] and normalised for CLIP. ``adjustment``: 0.
    ``input_ids``: a start, a dozen random tokens, an end, padding.
    """
    source = _Source(np.random.default_rng(seed), component, checkpoint)
    return {
        port.name: _DRAW[RESIDUAL if port.name.startswith(RESIDUAL) else port.name](source, port).astype(
            port.dtype
        )
        for port in component.inputs
    }


def _noise(source: _Source, port: PortSpec) -> Array:
    return source.generator.standard_normal(port.shape)


def _sample(source: _Source, port: PortSpec) -> Array:
    sample = _noise(source, port)
    if task(source.checkpoint) == "inpainting":
        mask = port.shape[1] // 2
        sample[:, mask] = sample[:, mask] > 0
    return sample


def _timesteps(source: _Source, port: PortSpec) -> Array:
    return source.generator.integers(0, train_timesteps(source.checkpoint), port.shape)


def _time_ids(source: _Source, port: PortSpec) -> Array:
    """Original height and width, where it was cropped, then the target's size or an aesthetic score."""
    sample = source.component.inputs[0].shape
    height, width = (size * vae_factor(source.checkpoint) for size in sample[2:])
    if port.shape[1] == 6:
        return np.array([[height, width, 0, 0, height, width]] * port.shape[0])
    scores = _AESTHETIC_SCORES[-port.shape[0] :]
    return np.array([[height, width, 0, 0, score] for score in scores])


def _guidance(_: _Source, port: PortSpec) -> Array:
    """The guidance scale as latent consistency models are told it.

    Source: ``get_guidance_scale_embedding`` in diffusers' pipeline_latent_consistency_text2img.py.
    """
    batch, width = port.shape
    half = width // 2
    angles = 1000 * (_GUIDANCE - 1) * np.exp(-np.log(10000) * np.arange(half) / max(half - 1, 1))
    embedding = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2)])
    return np.tile(embedding, (batch, 1))


def _latents(source: _Source, port: PortSpec) -> Array:
    return _noise(source, port) / vae_scaling_factor(source.checkpoint)


def _patches(source: _Source, shape: tuple[int, ...]) -> Array:
    """A BCHW picture in [-1, 1]."""
    batch, channels, height, width = shape
    rows, columns = -(-height // _PATCH), -(-width // _PATCH)
    colours = source.generator.uniform(-1, 1, (batch, channels, rows, columns))
    patches = colours.repeat(_PATCH, axis=2).repeat(_PATCH, axis=3)[:, :, :height, :width]
    return np.clip(patches + 0.05 * source.generator.standard_normal(shape), -1, 1)


def _image(source: _Source, port: PortSpec) -> Array:
    return _patches(source, port.shape)


def _drawn_images(source: _Source, port: PortSpec) -> Array:
    batch, height, width, channels = port.shape
    patches = _patches(source, (batch, channels, height, width))
    return np.moveaxis(patches, 1, -1) / 2 + 0.5


def _clip_input(source: _Source, port: PortSpec) -> Array:
    mean, deviation = (np.reshape(numbers, (1, -1, 1, 1)) for numbers in (_CLIP_MEAN, _CLIP_DEVIATION))
    normal: Array = (_patches(source, port.shape) / 2 + 0.5 - mean) / deviation
    return normal


def _no_adjustment(_: _Source, port: PortSpec) -> Array:
    return np.zeros(port.shape)


def _prompt(source: _Source, port: PortSpec) -> Array:
    """The start comes before the end in CLIP's vocabularies; configs of 2022 state other, wrong ids."""
    config = source.checkpoint.config(source.component.name)
    vocabulary, end = config.get("vocab_size", 49408), config.get("eos_token_id", 49407)
    end = end if 2 < end < vocabulary else vocabulary - 1
    length = min(_PROMPT_TOKENS, max(port.shape[1] - 2, 0))
    ids = np.full(port.shape, 0 if _pads_with_zero(source) else end)
    ids[:, 0] = end - 1
    ids[:, 1 : 1 + length] = source.generator.integers(0, end - 1, (port.shape[0], length))
    ids[:, 1 + length : 2 + length] = end
    return ids


def _pads_with_zero(source: _Source) -> bool:
    """Whether the tokenizer is OpenCLIP's, whose padding is token 0."""
    return source.component.name == "text_encoder_2" or family(source.checkpoint) == "sd2"


_DRAW: Final[Mapping[str, Draw]] = {
    "sample": _sample,
    "timestep": _timesteps,
    "encoder_hidden_states": _noise,
    "time_ids": _time_ids,
    "text_embeds": _noise,
    "timestep_cond": _guidance,
    RESIDUAL: _noise,
    "z": _latents,
    "x": _image,
    "input_ids": _prompt,
    "clip_input": _clip_input,
    "images": _drawn_images,
    "adjustment": _no_adjustment,
}
