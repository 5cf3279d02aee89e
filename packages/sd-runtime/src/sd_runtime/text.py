"""Prompts to what the denoiser attends to: tokens, then the text encoders' hidden states.

Legend: S tokens of the window, C channels of all text encoders together, E of the pooled embedding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sd_tokenize import ClipTokenizer

from sd_runtime.bundle import HiddenStates
from sd_runtime.errors import BundleError, PromptTruncatedWarning
from sd_runtime.model import LoadedModel

Float: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A text encoder with its own tokenizer; ``hidden_states`` is the output that the denoiser attends to."""

    model: LoadedModel
    tokenizer: ClipTokenizer
    hidden_states: HiddenStates


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One prompt as the denoiser takes it.

    Shapes:
        states: (1, C, 1, S).
        pooled: (1, E), or None where the denoiser does not ask for it.
    """

    states: Float
    pooled: Float | None
    truncated: str = ""

    def zeroed(self) -> EncodedText:
        """What stands for no prompt at all in SDXL."""
        return EncodedText(
            np.zeros_like(self.states), None if self.pooled is None else np.zeros_like(self.pooled)
        )


def encode_prompt(encoders: Sequence[TextEncoder], prompt: str, *, pooled: bool) -> EncodedText:
    """``prompt`` through every encoder: states joined over the channels, the last one's ``pooled_outputs``.

    Raises:
        BundleError: the encoders have windows of different lengths, or more than one row.
        PortsError: the last encoder has no ``pooled_outputs``, which ``pooled`` asks for.
    """
    length = _common_window(encoders)
    parts: list[Float] = []
    truncated, embedding = "", None
    for encoder in encoders:
        tokens = encoder.tokenizer.encode(prompt, length=length)
        truncated = truncated or tokens.truncated
        outputs = [encoder.hidden_states, *(["pooled_outputs"] if pooled and encoder is encoders[-1] else [])]
        results = encoder.model.predict_all(outputs, input_ids=np.array([tokens.ids], dtype=np.int64))
        parts.append(results[encoder.hidden_states])
        embedding = results.get("pooled_outputs")
    states = np.concatenate(parts, axis=-1)  # (1, S, C)
    return EncodedText(states.transpose(0, 2, 1)[:, :, None], embedding, truncated)


def warn_of_truncation(text: EncodedText) -> None:
    """Name what was cut off a prompt, if anything was."""
    if text.truncated:
        warnings.warn(
            f"the prompt is longer than the {text.states.shape[-1]} tokens of the text encoder; "
            f"this was cut off its end: {text.truncated!r}",
            PromptTruncatedWarning,
            stacklevel=2,
        )


def _common_window(encoders: Sequence[TextEncoder]) -> int:
    """Tokens of the window of all encoders, of which each takes one prompt at a time."""
    shapes = {encoder.model.component.package: encoder.model.input("input_ids").shape for encoder in encoders}
    windows = set(shapes.values())
    if len(windows) != 1 or any(len(window) != 2 or window[0] != 1 for window in windows):
        found = "; ".join(f"{list(shape)} in {package}" for package, shape in shapes.items())
        raise BundleError(f"expected input_ids of one shape [1, tokens] in every text encoder, got {found}")
    return windows.pop()[1]
