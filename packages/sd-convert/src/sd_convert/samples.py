"""Inputs of the kind that a network sees when it draws, from a seed.

Inputs that a network never sees hide errors or invent them: attention over tokens that are all alike, or
latents of the wrong size, says little about pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .checkpoint import Checkpoint
from .component import Component, PortSpec
from .facts import train_timesteps, vae_scaling_factor

_PATCH: Final = 8  # pixels of one colour, along each side
_PROMPT_TOKENS: Final = 12

Draw = Callable[[np.random.Generator, PortSpec, Checkpoint], npt.NDArray[Any]]


def sample_inputs(
    component: Component, checkpoint: Checkpoint, *, seed: int = 0
) -> Mapping[str, npt.NDArray[np.generic]]:
    """One array for each input port, in its shape and dtype; equal seeds give equal arrays.

    ``sample``: standard normal, as latents are at the start of sampling. ``timestep``: for each row one
    of the scheduler's. ``encoder_hidden_states``: standard normal, as the text encoder's last layer norm
    leaves them. ``z``: standard normal divided by the scaling factor. ``x``: patches of colour with a
    little noise, in [-1, 1]. ``input_ids``: a start, a dozen random tokens, an end, padding.
    """
    generator = np.random.default_rng(seed)
    return {
        port.name: _DRAW[port.name](generator, port, checkpoint).astype(port.dtype)
        for port in component.inputs
    }


def _noise(generator: np.random.Generator, port: PortSpec, _: Checkpoint) -> npt.NDArray[Any]:
    return generator.standard_normal(port.shape)


def _timesteps(generator: np.random.Generator, port: PortSpec, checkpoint: Checkpoint) -> npt.NDArray[Any]:
    return generator.integers(0, train_timesteps(checkpoint), port.shape)


def _latents(generator: np.random.Generator, port: PortSpec, checkpoint: Checkpoint) -> npt.NDArray[Any]:
    return generator.standard_normal(port.shape) / vae_scaling_factor(checkpoint)


def _image(generator: np.random.Generator, port: PortSpec, _: Checkpoint) -> npt.NDArray[Any]:
    batch, channels, height, width = port.shape
    rows, columns = -(-height // _PATCH), -(-width // _PATCH)
    colours = generator.uniform(-1, 1, (batch, channels, rows, columns))
    patches = colours.repeat(_PATCH, axis=2).repeat(_PATCH, axis=3)[:, :, :height, :width]
    return np.clip(patches + 0.05 * generator.standard_normal(port.shape), -1, 1)


def _prompt(generator: np.random.Generator, port: PortSpec, checkpoint: Checkpoint) -> npt.NDArray[Any]:
    """CLIP's vocabularies end with the start and the end token; configs of 2022 state other, wrong ids."""
    vocabulary = checkpoint.config("text_encoder").get("vocab_size", 49408)
    start, end = vocabulary - 2, vocabulary - 1
    ids = np.full(port.shape, end)
    ids[:, 0] = start
    ids[:, 1 : 1 + _PROMPT_TOKENS] = generator.integers(0, start, (port.shape[0], _PROMPT_TOKENS))
    return ids


_DRAW: Final[Mapping[str, Draw]] = {
    "sample": _noise,
    "timestep": _timesteps,
    "encoder_hidden_states": _noise,
    "z": _latents,
    "x": _image,
    "input_ids": _prompt,
}
