"""A checkpoint's configs, parsed once: what comes after reads none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from sd_bundle import Distillation, PredictionType

from sd_convert.checkpoint.checkpoint import TOKENIZERS, Checkpoint
from sd_convert.families import Family, family_of

from .section import Section
from .text import TextEncoderFacts, text_facts
from .unet import UNetFacts, unet_facts
from .vae import AutoencoderFacts, vae_facts

_TRAIN_TIMESTEPS: Final = 1000  # diffusers' default
_PREDICTIONS: Final = ("epsilon", "v_prediction", "sample")
_CHECKED_PIXELS: Final = 224  # transformers' default
_LAST_ENCODER: Final = "text_encoder_2"

#: The port of the timestep is float16, which has every whole number up to this one.
_MOST_TRAIN_TIMESTEPS: Final = 2048


@dataclass(frozen=True, slots=True)
class Facts:
    """What the networks of a checkpoint mean, each and together.

    ``text_encoders``: those that it lists and has, in the order in which their outputs are joined, and
    ``text_width``: channels of these, None if it is not known of all.
    ``train_timesteps``: of the noise schedule that the UNet was trained with. ``distillation``: ``lcm`` for
    latent consistency models. ``zeroes_empty_negative``: whether an empty negative prompt means zeros.
    ``checked_pixels``: of the pictures that the safety checker looks at, along each side.
    """

    name: str
    family: Family
    prediction_type: PredictionType
    train_timesteps: int
    distillation: Distillation | None
    unet: UNetFacts
    vae: AutoencoderFacts
    text_encoders: tuple[TextEncoderFacts, ...]
    text_width: int | None
    zeroes_empty_negative: bool
    checked_pixels: int

    def text_encoder(self, name: str) -> TextEncoderFacts:
        """The text encoder of that name."""
        return next(encoder for encoder in self.text_encoders if encoder.name == name)


def read_facts(checkpoint: Checkpoint) -> Facts:
    """Everything that ``checkpoint``'s configs say.

    Raises:
        IncompleteCheckpointError: the index, or the config of UNet, VAE or scheduler is missing.
        UnsupportedArchitectureError: a config says something that is not understood.
    """
    index, scheduler = section(checkpoint, "model_index"), section(checkpoint, "scheduler")
    unet, listed = _unet(checkpoint), _text_encoders(checkpoint)
    encoders = tuple(
        text_facts(name, section(checkpoint, name)) for name in listed if name in checkpoint.configs
    )
    family = family_of(time_ids=unet.time_ids, linear_projection=unet.linear_projection)
    is_lcm = unet.guidance_width is not None or scheduler.values.get("_class_name") == "LCMScheduler"
    return Facts(
        name=checkpoint.name,
        family=family,
        prediction_type=_prediction_type(scheduler),
        train_timesteps=scheduler.count("num_train_timesteps", _TRAIN_TIMESTEPS, most=_MOST_TRAIN_TIMESTEPS),
        distillation="lcm" if is_lcm else None,
        unet=unet,
        vae=vae_facts(section(checkpoint, "vae")),
        text_encoders=encoders,
        text_width=sum(e.width for e in encoders) if encoders and len(encoders) == len(listed) else None,
        zeroes_empty_negative=family.takes_sizes
        and bool(index.values.get("force_zeros_for_empty_prompt", True)),
        checked_pixels=_checked_pixels(checkpoint),
    )


def section(checkpoint: Checkpoint, folder: str) -> Section:
    """The config of a folder.

    Raises:
        IncompleteCheckpointError: the checkpoint has none.
    """
    return Section(f"{checkpoint.name}/{folder}", checkpoint.config(folder))


def _unet(checkpoint: Checkpoint) -> UNetFacts:
    """The UNet's pooled text is the second text encoder's, which only SDXL's checkpoints have."""

    def pooled_width() -> int:
        return text_facts(_LAST_ENCODER, section(checkpoint, _LAST_ENCODER)).pooled_width

    return unet_facts(section(checkpoint, "unet"), pooled_width=pooled_width)


def _text_encoders(checkpoint: Checkpoint) -> tuple[str, ...]:
    index = checkpoint.config("model_index")
    return tuple(name for name in TOKENIZERS if index.get(name) not in (None, [None, None]))


def _prediction_type(scheduler: Section) -> PredictionType:
    value = scheduler.values.get("prediction_type", "epsilon")
    if value not in _PREDICTIONS:
        raise scheduler.unexpected("prediction_type", "epsilon, v_prediction or sample")
    return cast(PredictionType, value)


def _checked_pixels(checkpoint: Checkpoint) -> int:
    vision = checkpoint.configs.get("safety_checker", {}).get("vision_config")
    values = vision if isinstance(vision, dict) else {}
    return Section(f"{checkpoint.name}/safety_checker", values).count("image_size", _CHECKED_PIXELS)
