"""Prompts to what the denoiser attends to: tokens, then the text encoders' hidden states.

Legend: S tokens of the window, C channels of all text encoders together, E of the pooled embedding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import Bundle, BundleError, HiddenStates
from sd_tokenize import ClipTokenizer, TokenizerError, Tokens

from sd_runtime.conditioning.guidance import PERP_NEG, is_guided
from sd_runtime.conditioning.text_changes import TextChanges
from sd_runtime.errors import PromptTruncatedWarning, SettingsError
from sd_runtime.model import LoadedModel
from sd_runtime.models import Models
from sd_runtime.settings import ImageSettings, PromptSyntax

Float: TypeAlias = npt.NDArray[np.float32]

#: Encoded prompts that are remembered: those of a picture, and of the one before.
REMEMBERED: Final = 4


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


@dataclass(frozen=True, slots=True)
class Texts:
    """The prompts of one picture: ``negative`` with guidance, ``empty`` with guidance that asks for it."""

    positive: EncodedText
    negative: EncodedText | None = None
    empty: EncodedText | None = None


class Prompts:
    """Prompts through the text encoders of a bundle; the last few are remembered, so that these may go."""

    def __init__(self, models: Models, text: TextChanges | None = None) -> None:
        """Nothing is loaded before a prompt is encoded; ``text`` is what was done to the encoders."""
        self._models, self._text = models, text or TextChanges()
        self._encoded: dict[tuple[str, PromptSyntax | None], EncodedText] = {}
        self._lock = Lock()

    def forget(self) -> None:
        """Let go of what is remembered."""
        with self._lock:
            self._encoded = {}

    def of(self, settings: ImageSettings) -> Texts:
        """The prompt, and what guidance leads away from, if there is any."""
        facts, syntax = self._models.bundle.manifest.model, settings.prompt_syntax
        positive = self.encode(settings.prompt, syntax)
        if not is_guided(settings, facts):
            return Texts(positive)

        def away(prompt: str) -> EncodedText:
            if facts.conditioning.zero_empty_negative and not prompt:
                return positive.zeroed()
            return self.encode(prompt, syntax)

        needs_empty = settings.guidance_method == PERP_NEG
        return Texts(positive, away(settings.negative_prompt), away("") if needs_empty else None)

    def encode(self, prompt: str, syntax: PromptSyntax | None = None) -> EncodedText:
        """``prompt`` for the denoiser; warns of what is cut off it. Errors as :func:`encode_prompt`."""
        key = (prompt, syntax)
        with self._lock:
            text = self._encoded.get(key)
        if text is None:
            text = self._run(prompt, syntax)
            with self._lock:
                self._encoded = {**dict(list(self._encoded.items())[1 - REMEMBERED :]), key: text}
        warn_of_truncation(text)
        return text

    def fit(self, settings: ImageSettings, tokens: int) -> bool:
        """Whether nothing of the prompts of a picture is cut off where the denoiser attends to ``tokens``.

        Nothing is loaded. Errors as :func:`encode_prompt`.
        """
        bundle, syntax = self._models.bundle, settings.prompt_syntax
        guided = is_guided(settings, bundle.manifest.model)
        prompts = [settings.prompt, *([settings.negative_prompt] if guided else [])]
        for encoding in bundle.manifest.model.text_encoders:
            shapes = {port.name: port.shape for port in bundle.component(encoding.component).inputs}
            window = shapes.get("input_ids", (1, tokens))[-1]
            count, tokenizer = _window_count(tokens, window), self._text.tokenizer(bundle, encoding)
            if any(_windows(tokenizer, prompt, count, window, syntax)[-1].truncated for prompt in prompts):
                return False
        return True

    def _run(self, prompt: str, syntax: PromptSyntax | None) -> EncodedText:
        bundle = self._models.bundle
        pooled = bundle.manifest.model.conditioning.time_ids != "none"
        encoders = _encoders(self._models, self._text)
        return encode_prompt(encoders, prompt, length=attended(bundle), pooled=pooled, syntax=syntax)


def attended(bundle: Bundle) -> int | None:
    """How many tokens the denoiser attends to; None where it does not say."""
    ports = {port.name: port.shape for port in bundle.only("denoiser").inputs}
    states = ports.get("encoder_hidden_states")
    return states[-1] if states else None


def _encoders(models: Models, text: TextChanges) -> list[TextEncoder]:
    encodings = models.bundle.manifest.model.text_encoders
    if not encodings:
        models.bundle.only("text_encoder")  # says what the bundle has instead
    return [
        TextEncoder(
            models.of(models.bundle.component(encoding.component)),
            text.tokenizer(models.bundle, encoding),
            encoding.hidden_states,
        )
        for encoding in encodings
    ]


def encode_prompt(
    encoders: Sequence[TextEncoder],
    prompt: str,
    *,
    length: int | None,
    pooled: bool,
    syntax: PromptSyntax | None = None,
) -> EncodedText:
    """``prompt`` through every encoder: states joined over the channels, the last one's ``pooled_outputs``.

    ``length`` is the number of tokens that the denoiser attends to: one window of the encoders, which None
    stands for, or several, which are encoded one by one. The pooled embedding is the first one's. ``syntax``
    ``a1111`` reads weights in the prompt (``sd_tokenize.parse_emphasis``), which multiply the states.

    Raises:
        SettingsError: the prompt breaks the rules of its syntax, or asks for more windows than there are.
        BundleError: the encoders have windows of different lengths, or more than one row, or ``length`` is no
            multiple of their window.
        PortsError: the last encoder has no ``pooled_outputs``, which ``pooled`` asks for.
    """
    window = _common_window(encoders)
    count = _window_count(length or window, window)
    states, embedding, truncated = [], None, ""
    for encoder in encoders:
        wants_pooled = pooled and encoder is encoders[-1]
        windows = _windows(encoder.tokenizer, prompt, count, window, syntax)
        encoded = [_encode(encoder, tokens, wants_pooled) for tokens in windows]
        states.append(np.concatenate([part for part, _ in encoded], axis=1))
        embedding = encoded[0][1]
        truncated = truncated or windows[-1].truncated
    joined = np.concatenate(states, axis=-1)  # (1, S, C)
    return EncodedText(joined.transpose(0, 2, 1)[:, :, None], embedding, truncated)


def _windows(
    tokenizer: ClipTokenizer, prompt: str, count: int, length: int, syntax: PromptSyntax | None
) -> tuple[Tokens, ...]:
    read = tokenizer.windows if syntax is None else tokenizer.weighted_windows
    try:
        return read(prompt, count=count, length=length)
    except TokenizerError as error:
        raise SettingsError(f"prompt: {error}") from error


def _encode(encoder: TextEncoder, tokens: Tokens, pooled: bool) -> tuple[Float, Float | None]:
    """Hidden states (1, S, C) of one window and, if asked for, its pooled embedding (1, E)."""
    outputs = [encoder.hidden_states, *(["pooled_outputs"] if pooled else [])]
    results = encoder.model.predict_all(outputs, input_ids=np.array([tokens.ids], dtype=np.int64))
    states = results[encoder.hidden_states]
    if any(weight != 1 for weight in tokens.weights):
        states = emphasized(states, tokens.weights)
    return states, results.get("pooled_outputs")


def emphasized(states: Float, weights: Sequence[float]) -> Float:
    """``states`` (1, S, C) times the weight of each token (S,), brought back to the mean they had.

    Source: AUTOMATIC1111/stable-diffusion-webui, modules/sd_emphasis.py (``EmphasisOriginal``).
    """
    weighted = states * np.asarray(weights, np.float32)[:, None]
    before, after = states.mean(dtype=np.float64), weighted.mean(dtype=np.float64)
    restored: Float = weighted * np.float32(before / after) if after else weighted
    return restored


def _window_count(length: int, window: int) -> int:
    if length % window:
        raise BundleError(
            f"expected a denoiser that attends to a multiple of {window} tokens, which a text encoder takes "
            f"at once, got one for {length}: convert both with one text-token-sequence-length"
        )
    return length // window


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
    shapes = {encoder.model.component.name: encoder.model.input("input_ids").shape for encoder in encoders}
    windows = set(shapes.values())
    if len(windows) != 1 or any(len(window) != 2 or window[0] != 1 for window in windows):
        found = "; ".join(f"{list(shape)} in {name}" for name, shape in shapes.items())
        raise BundleError(f"expected input_ids of one shape [1, tokens] in every text encoder, got {found}")
    return windows.pop()[1]
