"""Prompts to what the denoiser attends to: tokens, then the text encoder's last hidden states.

Legend: B batch, S tokens of the window, C channels of the text encoder.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sd_tokenize import ClipTokenizer

from sd_runtime.errors import BundleError, PromptTruncatedWarning
from sd_runtime.model import LoadedModel


def encode_prompts(
    encoder: LoadedModel, tokenizer: ClipTokenizer, prompts: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Hidden states of each prompt in the denoiser's layout.

    Returns:
        (B, C, 1, S), the last layer's states after the final normalisation, as SD 1.x and 2.x use them.

    Raises:
        BundleError: the tokenizer's window is not the text encoder's.

    Warns:
        PromptTruncatedWarning: a prompt is longer than the window; the message names what was cut.
    """
    _check_window(encoder, tokenizer)
    states = [_encode(encoder, tokenizer, prompt) for prompt in prompts]
    return np.stack([state.T[:, None, :] for state in states])


def _encode(encoder: LoadedModel, tokenizer: ClipTokenizer, prompt: str) -> npt.NDArray[np.float32]:
    """Hidden states of one prompt, (S, C)."""
    tokens = tokenizer.encode(prompt)
    if tokens.truncated:
        warnings.warn(
            f"the prompt is longer than the {tokenizer.max_length} tokens of the text encoder; "
            f"this was cut off its end: {tokens.truncated!r}",
            PromptTruncatedWarning,
            stacklevel=2,
        )
    states: npt.NDArray[np.float32] = encoder.predict(
        "last_hidden_state", input_ids=np.array([tokens.ids], dtype=np.int64)
    )[0]
    return states


def _check_window(encoder: LoadedModel, tokenizer: ClipTokenizer) -> None:
    window = encoder.input("input_ids").shape
    if window != (1, tokenizer.max_length):
        raise BundleError(
            f"expected input_ids of shape [1, {tokenizer.max_length}] as the tokenizer fills it, "
            f"got {list(window)} in {encoder.component.package}"
        )
