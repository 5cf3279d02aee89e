"""What the networks of a bundle mean together: the ``model`` part of the manifest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sd_bundle.errors import ManifestError
from sd_bundle.paths import check_relative
from sd_bundle.rules import check_elements, check_filled, check_positive, check_unique

Family: TypeAlias = Literal["sd1", "sd2", "sdxl", "sdxl-refiner"]
Task: TypeAlias = Literal["text-to-image", "inpainting", "instruct-pix2pix"]
Architecture: TypeAlias = Literal["unet"]
Distillation: TypeAlias = Literal["lcm"]
PredictionType: TypeAlias = Literal["epsilon", "v_prediction", "sample"]
Encodes: TypeAlias = Literal["moments", "latents"]
HiddenStates: TypeAlias = Literal["last_hidden_state", "hidden_embeds"]
TimeIds: TypeAlias = Literal["none", "size", "aesthetic_score"]


@dataclass(frozen=True, slots=True)
class LatentSize:
    """What the denoiser works on, without the batch: channels, height, width."""

    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse sizes below one, and latents that no array can hold."""
        for name in ("channels", "height", "width"):
            check_positive(getattr(self, name), f"$.{name}")
        check_elements((self.channels, self.height, self.width), "$")


@dataclass(frozen=True, slots=True)
class ImageSize:
    """What the decoder draws, in pixels."""

    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse sizes below one, and pictures that no array can hold."""
        for name in ("height", "width"):
            check_positive(getattr(self, name), f"$.{name}")
        check_elements((self.height, self.width), "$")

    def __str__(self) -> str:
        """Width first, as sizes of pictures are written: ``768x512``."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class PictureSize:
    """A size that the model draws, and the latent of such a picture."""

    image: ImageSize
    latent: LatentSize


@dataclass(frozen=True, slots=True)
class DenoiserFacts:
    """What kind of network the denoiser is.

    ``architecture`` says how it is called: ``unet``, with the ports ``sample``, ``timestep`` and
    ``encoder_hidden_states``. ``distillation`` is ``lcm`` for one that was distilled to draw in a few steps
    (latent consistency), None for one that takes as many as its scheduler.
    """

    architecture: Architecture
    distillation: Distillation | None


@dataclass(frozen=True, slots=True)
class VaeFacts:
    """``z = latents / scaling_factor + shift_factor`` is what the decoder takes.

    ``encodes`` is what the encoder returns: ``moments``, mean and log variance one after the other over the
    channels (AutoencoderKL), or ``latents``, the ``z`` itself (AutoencoderTiny).
    """

    scaling_factor: float
    shift_factor: float
    encodes: Encodes

    def __post_init__(self) -> None:
        """Refuse a factor that cannot be divided by, and numbers that are none."""
        if not (math.isfinite(self.scaling_factor) and self.scaling_factor > 0):
            raise ManifestError("$.scaling_factor", "a positive number", self.scaling_factor)
        if not math.isfinite(self.shift_factor):
            raise ManifestError("$.shift_factor", "a finite number", self.shift_factor)


@dataclass(frozen=True, slots=True)
class TextEncoding:
    """A text-encoder component by name, and the folder of its tokenizer's files.

    ``hidden_states`` is the output that the denoiser attends to.
    """

    component: str
    tokenizer: str
    hidden_states: HiddenStates

    def __post_init__(self) -> None:
        """Refuse paths out of the bundle."""
        check_relative(self.tokenizer, "$.tokenizer")


@dataclass(frozen=True, slots=True)
class ConditioningFacts:
    """What the denoiser is told beside the timestep and the text.

    ``time_ids`` is what the input of that name holds: ``size`` for (original height, width, crop top, left,
    target height, width), ``aesthetic_score`` for (original height, width, crop top, left, score), in pixels.
    ``zero_empty_negative`` says that an empty negative prompt stands for zeros instead of its hidden states.
    ``guidance_embedding`` says that the guidance scale enters through ``timestep_cond``, not by a second row.
    """

    time_ids: TimeIds
    zero_empty_negative: bool
    guidance_embedding: bool

    @property
    def time_id_count(self) -> int:
        """Length of ``time_ids``."""
        return {"none": 0, "size": 6, "aesthetic_score": 5}[self.time_ids]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the networks mean together.

    ``identifier`` is the model version as the checkpoint's owner writes it. ``scheduler`` is the file that
    holds the noise schedule (diffusers' ``scheduler_config.json``). ``sizes`` are those of the pictures, the
    first one drawn where none is asked for. ``text_encoders`` are in the order in which their hidden states
    are joined; the pooled embedding is the last one's. ``recipe`` is how a model that was distilled to draw
    in a few steps wants to be sampled, by a name that who draws knows; None where nobody said.
    """

    identifier: str
    family: Family
    task: Task
    denoiser: DenoiserFacts
    prediction_type: PredictionType
    scheduler: str
    sizes: tuple[PictureSize, ...]
    vae: VaeFacts
    text_encoders: tuple[TextEncoding, ...]
    conditioning: ConditioningFacts
    recipe: str | None = None

    @property
    def image(self) -> ImageSize:
        """The picture drawn where no size is asked for."""
        return self.sizes[0].image

    @property
    def latent(self) -> LatentSize:
        """The latent of :attr:`image`."""
        return self.sizes[0].latent

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """One latent as a batch of one."""
        return (1, self.latent.channels, self.latent.height, self.latent.width)

    @property
    def denoiser_channels(self) -> int:
        """Channels of the denoiser's ``sample``: the latent, and what the task lays beside it."""
        beside = {
            "text-to-image": 0,
            "inpainting": 1 + self.latent.channels,  # mask, masked picture
            "instruct-pix2pix": self.latent.channels,  # picture
        }
        return self.latent.channels + beside[self.task]

    def __post_init__(self) -> None:
        """Refuse an empty identifier, paths out of the bundle, and sizes that are none or of two models."""
        check_filled(self.identifier, "$.identifier")
        check_relative(self.scheduler, "$.scheduler")
        if self.recipe is not None:
            check_filled(self.recipe, "$.recipe")
        if not self.sizes:
            raise ManifestError("$.sizes", "at least one size", ())
        check_unique((str(size.image) for size in self.sizes), "$.sizes")
        for index, size in enumerate(self.sizes):
            if size.latent.channels != self.latent.channels:
                where = f"$.sizes[{index}].latent.channels"
                expected = f"{self.latent.channels}, as in the first size"
                raise ManifestError(where, expected, size.latent.channels)
