"""What a task is: which models it suits, what it needs and honours, and where its pictures start.

The order in which tasks draw noise is diffusers': the image's latent, the start, the masked image's latent,
then the steps.

Legend: C channels of the latent, K extra channels of the denoiser, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import ModelFacts, Role
from sd_schedulers import NoiseSchedule, Start, Step

from sd_runtime.conditioning.pictures import encode_picture, scaled
from sd_runtime.denoiser import Denoiser
from sd_runtime.errors import SettingsError
from sd_runtime.model import LoadedModel
from sd_runtime.noise import NoiseStream
from sd_runtime.settings import ImageSettings
from sd_runtime.user_image import UserImage
from sd_runtime.variations import varied

Float: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Given:
    """What a task starts from: settings, pictures at the model's size, noise, and the networks it may run."""

    settings: ImageSettings
    model: ModelFacts
    schedule: NoiseSchedule
    noise: NoiseStream
    image: UserImage | None
    mask: UserImage | None
    load: Callable[[Role], LoadedModel]

    @property
    def picture(self) -> UserImage:
        """The image, which a task that needs one can count on."""
        return _present(self.image, "an image")

    @property
    def cover(self) -> UserImage:
        """The mask, likewise."""
        return _present(self.mask, "a mask")

    def fresh_noise(self) -> Float:
        """Unit Gaussian noise of the latent's shape, (1, C, h, w), to start from; varied, if asked."""
        return varied(self.noise.draw(self.model.latent_shape), self.settings)

    def diffused(self, picture: Float) -> Float:
        """A latent of ``picture`` (1, 3, H, W), drawn from the encoder's distribution and scaled."""
        encoder = self.load("image_encoder")
        return scaled(encode_picture(encoder, picture, self.model.vae, self.noise.draw), self.model.vae)

    def mode_of(self, picture: Float) -> Float:
        """The most likely latent of ``picture``, not scaled."""
        return encode_picture(self.load("image_encoder"), picture, self.model.vae, None)


def _present(image: UserImage | None, what: str) -> UserImage:
    if image is None:
        raise SettingsError(f"expected {what} for this task, got none")
    return image


def as_it_is(denoiser: Denoiser) -> Denoiser:
    """The denoiser sees the sampler's latent."""
    return denoiser


def as_sampled(step: Step) -> Step:
    """The step is the sampler's."""
    return step


@dataclass(frozen=True, slots=True)
class Begun:
    """Where sampling starts, and how the task takes part in it.

    ``extra_channels`` (1, K, h, w) are joined to what the denoiser sees. ``around`` may put something between
    sampler and denoiser, ``shown`` between sampler and caller.
    """

    start: Start
    extra_channels: Float | None = None
    around: Callable[[Denoiser], Denoiser] = as_it_is
    shown: Callable[[Step], Step] = as_sampled


def no_defaults(_: ModelFacts) -> Mapping[str, float]:
    """The task has no options of its own."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something that pictures can be drawn from. One file each; ``Pipeline.open(..., tasks=...)`` takes more.

    ``models`` are the kinds of model (``ModelFacts.task``) that it suits; ``needs``, the fields of a request
    (``image``, ``mask``) without which it is not meant. Of several that are possible, the one that needs most
    is meant. ``defaults`` are its own options (``strength``, ``image_guidance_scale``) and their values for a
    model, ``options`` the names of those that have none; ``loads``, the networks beside the usual ones;
    ``refinable`` says that a refiner may take over, ``in_two_passes`` that what it drew may be upscaled and
    drawn over.
    ``begin`` runs before the denoiser is loaded, and should keep arrays, not networks.
    """

    name: str
    models: frozenset[str]
    begin: Callable[[Given], Begun]
    needs: tuple[str, ...] = ()
    defaults: Callable[[ModelFacts], Mapping[str, float]] = no_defaults
    options: tuple[str, ...] = ()
    loads: tuple[Role, ...] = ()
    refinable: bool = False
    in_two_passes: bool = False
