"""A generation of Stable Diffusion, as values: what its checkpoints have in common, said or unsaid.

A folder in diffusers format says nearly all of it in its configs; a single file says next to nothing, and
gets the values with which the generation was published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sd_bundle import Family as FamilyName
from sd_bundle import HiddenStates, PredictionType, TimeIds

from .tasks import TaskKind

_ENCODER_CLASSES: Final = {
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}


#: What pads the prompts of CLIP's tokenizer, and of OpenCLIP's.
CLIP_PAD: Final = "<|endoftext|>"
OPEN_CLIP_PAD: Final = "!"


@dataclass(frozen=True, slots=True)
class Encoder:
    """A text encoder: ``width`` of its hidden states, and the token that pads its prompts.

    ``place``: what its tensors' names begin with in a single file, and the ``layout`` that the rest is in.
    """

    folder: str
    width: int
    pad_token: str
    place: str
    layout: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a UNet predicts; ``note`` is what the user should hear about how that is known, or nothing."""

    kind: PredictionType
    zero_terminal_snr: bool = False
    note: str | None = None


def predicts_epsilon(_: int | None, __: int) -> Prediction:
    """What nearly every UNet predicts."""
    return Prediction("epsilon")


@dataclass(frozen=True, slots=True)
class Family:
    """One generation.

    ``hidden_states``: the output of its text encoders that the UNet attends to. ``time_ids``: what the UNet
    is told of sizes. ``linear_projection``: whether its attention projects with linear layers, where that
    tells it from another family. ``heads``: the attention heads of blocks of these widths, which no shape
    tells. ``pipeline``, ``sample_size``, ``scaling_factor``, ``scheduler``, ``index``: what a single file
    does not say, as published; ``sample_size_v`` is for models that predict v, ``alone`` the word in the name
    of the pipeline without another task. ``unsaid_prediction``: what a file predicts that does not say it,
    by its training steps and the UNet's input channels.
    """

    name: FamilyName
    title: str
    license: str
    hidden_states: HiddenStates
    time_ids: TimeIds
    linear_projection: bool | None
    heads: Callable[[list[int]], int | list[int]]
    encoders: tuple[Encoder, ...]
    pipeline: str
    sample_size: int
    scaling_factor: float
    scheduler: Mapping[str, Any]
    sample_size_v: int | None = None
    index: Mapping[str, Any] = field(default_factory=dict)
    alone: str = ""
    unsaid_prediction: Callable[[int | None, int], Prediction] = predicts_epsilon

    @property
    def takes_sizes(self) -> bool:
        """Whether the UNet is conditioned on sizes and a pooled text, which makes it another network."""
        return self.time_ids != "none"

    @property
    def time_id_count(self) -> int:
        """How many numbers ``time_ids`` are."""
        return TIME_ID_COUNTS[self.time_ids]

    @property
    def text_width(self) -> int:
        """Channels of the hidden states of all its text encoders, side by side."""
        return sum(encoder.width for encoder in self.encoders)

    def encoder(self, folder: str) -> Encoder:
        """The text encoder of that folder."""
        return next(encoder for encoder in self.encoders if encoder.folder == folder)

    def pads_with_zero(self, folder: str) -> bool:
        """Whether the tokenizer of that text encoder is OpenCLIP's, whose padding is token 0."""
        return any(e.folder == folder and e.pad_token == OPEN_CLIP_PAD for e in self.encoders)

    def latent_side(self, prediction: str) -> int:
        """Latent pixels along each side of the pictures that it was trained with."""
        wants_v = prediction == "v_prediction" and self.sample_size_v is not None
        return (self.sample_size_v if wants_v else None) or self.sample_size

    def scheduler_config(self, prediction: Prediction) -> dict[str, Any]:
        """The scheduler's config in diffusers' words."""
        config = {**self.scheduler, "prediction_type": prediction.kind}
        if prediction.zero_terminal_snr:
            config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        return config

    def model_index(self, task: TaskKind) -> dict[str, Any]:
        """The ``model_index.json`` of its pipeline for a task."""
        encoders = {encoder.folder for encoder in self.encoders}
        return {
            "_class_name": f"{self.pipeline}{task.pipeline or self.alone}Pipeline",
            "scheduler": ["diffusers", self.scheduler["_class_name"]],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            **{
                folder: ["transformers", kind] if folder in encoders else [None, None]
                for folder, kind in _ENCODER_CLASSES.items()
            },
            **self.index,
        }


#: Numbers in ``time_ids``: original and target size and where it was cropped, or a score for the target.
TIME_ID_COUNTS: Final[Mapping[TimeIds, int]] = {"none": 0, "size": 6, "aesthetic_score": 5}

#: Width of an attention head in SD 2 and XL.
_HEAD_CHANNELS: Final = 64


def heads_by_width(widths: list[int]) -> list[int]:
    """One head for 64 channels, as in SD 2 and XL."""
    return [max(1, width // _HEAD_CHANNELS) for width in widths]
