"""Prompts, pictures and sizes, in the rows that guidance combines.

Legend: n rows, K extra channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ModelFacts

from sd_runtime.conditioning.guidance import (
    GUIDANCE,
    Guide,
    guidance_embedding,
    instructed,
    rescaled,
    unguided,
)
from sd_runtime.conditioning.prompt import EncodedText
from sd_runtime.conditioning.sizes import time_ids
from sd_runtime.errors import SettingsError
from sd_runtime.model import LoadedModel
from sd_runtime.settings import ImageSettings

Float: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the denoiser is told, a row for each prediction that the guide combines.

    Shapes:
        rows: by the name of the input, (n, ...).
        extra_channels: (n, K, H, W), joined to the latent over the channels; None where the UNet has none.
        is_negative: (n,), whether guidance moves away from the row.
    """

    rows: Mapping[str, Float]
    extra_channels: Float | None
    guide: Guide
    is_negative: tuple[bool, ...]

    def positive(self) -> Conditions:
        """The one row that guidance moves towards, alone."""
        at = self.is_negative.index(False)
        rows = {name: values[at : at + 1] for name, values in self.rows.items()}
        extra = None if self.extra_channels is None else self.extra_channels[at : at + 1]
        return Conditions(rows, extra, unguided, (False,))


@dataclass(frozen=True, slots=True)
class Row:
    """One prediction: its text, whether it is one to move away from, and whether it sees the picture."""

    text: EncodedText
    is_negative: bool = False
    sees_picture: bool = True


def conditions(
    unet: LoadedModel,
    facts: ModelFacts,
    settings: ImageSettings,
    *,
    positive: EncodedText,
    negative: EncodedText | None,
    extra_channels: Float | None,
    empty: EncodedText | None = None,
) -> Conditions:
    """Everything that ``unet`` is told; ``negative`` is None without guidance, the channels (1, K, H, W).

    ``empty`` is the empty prompt, for ways of guidance that ask for it.
    """
    rows, guide = _rows(settings, positive, negative, empty)
    inputs = {"encoder_hidden_states": np.concatenate([row.text.states for row in rows])}
    if facts.conditioning.time_ids != "none":
        inputs["text_embeds"] = np.concatenate([_pooled(row.text) for row in rows])
        ids = [time_ids(facts, settings, is_negative=row.is_negative) for row in rows]
        inputs["time_ids"] = np.array(ids, np.float32)
    if facts.conditioning.guidance_embedding:
        width = unet.input("timestep_cond").shape[-1]
        inputs["timestep_cond"] = guidance_embedding(settings.guidance_scale - 1, width).repeat(len(rows), 0)
    is_negative = tuple(row.is_negative for row in rows)
    return Conditions(inputs, _seen(rows, extra_channels), guide, is_negative)


def _rows(
    settings: ImageSettings,
    positive: EncodedText,
    negative: EncodedText | None,
    empty: EncodedText | None,
) -> tuple[list[Row], Guide]:
    if negative is None:
        return [Row(positive)], unguided
    if settings.image_guidance_scale is None:
        guide = GUIDANCE[settings.guidance_method or "cfg"](settings.guidance_scale)
        if settings.guidance_rescale:
            guide = rescaled(guide, settings.guidance_rescale)
        others = [negative] if empty is None else [empty, negative]
        return [*(Row(text, is_negative=True) for text in others), Row(positive)], guide
    rows = [
        Row(positive),
        Row(negative, is_negative=True),
        Row(negative, is_negative=True, sees_picture=False),
    ]
    return rows, instructed(settings.guidance_scale, settings.image_guidance_scale)


def _pooled(text: EncodedText) -> Float:
    if text.pooled is None:
        raise SettingsError("expected a text with its pooled embedding, got one without")
    return text.pooled


def _seen(rows: list[Row], channels: Float | None) -> Float | None:
    if channels is None:
        return None
    return np.concatenate([channels if row.sees_picture else np.zeros_like(channels) for row in rows])
