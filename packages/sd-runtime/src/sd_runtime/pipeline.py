"""From a bundle and a prompt to a picture.

Each arrow is a function of its own, in the file named: prompt -> tokens -> hidden states (``text``) -> guided
denoiser (``guidance``) -> latents, step by step (sd_schedulers) -> pixels (``picture``) -> PNG (``png``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
from sd_schedulers import NoiseSchedule, Step, resolve, sample
from sd_tokenize import ClipTokenizer

from sd_runtime.bundle import Bundle, BundleComponent, Role, open_bundle
from sd_runtime.errors import MissingComponentError, SettingsError
from sd_runtime.guidance import guided_denoiser, is_guided
from sd_runtime.model import Engine, LoadedModel, Model, Precision, open_model, resolve_engine
from sd_runtime.noise import Rng, draw_noise
from sd_runtime.picture import decode_latent, to_image, to_pixels
from sd_runtime.png import GeneratedImage, ImageSettings
from sd_runtime.text import encode_prompts

if TYPE_CHECKING:
    from PIL.Image import Image


class SamplingOptions(TypedDict, total=False):
    """The keyword arguments of :meth:`Pipeline.settings`, which documents them and holds their defaults."""

    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str | None
    rng: Rng


class Pipeline:
    """A bundle that draws. Models load when they are first needed and stay until :meth:`release`."""

    def __init__(
        self,
        bundle: Bundle,
        open_model: Callable[[BundleComponent], Model],
        *,
        engine: str = "custom",
        precision: str = "fp32",
    ) -> None:
        """Draw with the models that ``open_model`` returns; :meth:`open` is the usual way in.

        ``engine`` and ``precision`` are what the settings of a picture say about them.
        """
        self.bundle, self.engine, self.precision = bundle, engine, precision
        self._open_model = open_model
        self._loaded: dict[Role, LoadedModel] = {}

    @classmethod
    def open(cls, path: str | Path, *, engine: Engine = "auto", precision: Precision = "fp32") -> Pipeline:
        """The pipeline of the bundle at ``path``.

        ``engine`` is ``coreml`` (macOS only), ``portable`` (OpenVINO), ``reference`` (numpy, slow), or
        ``auto``: Core ML on macOS, portable elsewhere. ``precision`` is the arithmetic of portable, ``fp32``
        or ``bf16``; Core ML always computes as the package says.

        Raises:
            BundleError: not a sound bundle.
            EngineError: the engine or the precision is not to be had here.
        """
        resolved = resolve_engine(engine, precision)
        bundle = open_bundle(path)
        return cls(
            bundle,
            partial(open_model, bundle, engine=resolved, precision=precision),
            engine=resolved,
            precision="package" if resolved == "coreml" else precision,
        )

    def settings(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        seed: int = 93,
        num_inference_steps: int = 20,
        guidance_scale: float = 7.5,
        scheduler: str | None = None,
        rng: Rng = "numpy",
    ) -> ImageSettings:
        """The settings of one picture, complete and checked; nothing is loaded.

        Args:
            prompt: what to draw.
            negative_prompt: what not to draw; without effect unless ``guidance_scale`` is above 1.
            seed: of the noise; ``rng`` says whose generator makes the noise of it.
            num_inference_steps: how many steps to sample.
            guidance_scale: how far to follow the prompt; up to 1 there is no guidance, and half the work.
            scheduler: a name that sd_schedulers knows; by default the one that the bundle names.
            rng: ``numpy``, as in Apple's Python pipeline, or ``torch``, as in diffusers on a CPU.

        Raises:
            SettingsError: a value makes no sense.
            sd_schedulers.ScheduleError: no scheduler of that name.
        """
        if num_inference_steps < 1:
            raise SettingsError(f"expected num_inference_steps of at least 1, got {num_inference_steps!r}")
        if not math.isfinite(guidance_scale):
            raise SettingsError(f"expected a finite guidance_scale, got {guidance_scale!r}")
        draw_noise((1,), seed, rng)  # refuses an unknown generator or seed before any work is done
        model = self.bundle.manifest.model
        return ImageSettings(
            prompt=prompt,
            negative_prompt=negative_prompt,
            seed=seed,
            rng=rng,
            scheduler=resolve(scheduler or self._own_scheduler()),
            num_inference_steps=num_inference_steps,
            guidance_scale=float(guidance_scale),
            width=model.image.width,
            height=model.image.height,
            model=model.identifier,
            engine=self.engine,
            precision=self.precision,
        )

    def steps(self, prompt: str, **options: Unpack[SamplingOptions]) -> Iterator[Step]:
        """Sample one picture, a step at a time; the arguments are those of :meth:`settings`.

        Progress, preview (``pipeline.decode(step.denoised)``) and cancelling (``break``) are the caller's
        loop; the last step's ``latent`` is the picture's.

        Raises:
            SettingsError: see :meth:`settings`.
            MissingComponentError: the bundle has no text encoder or no denoiser.

        Warns:
            PromptTruncatedWarning: the prompt is longer than the text encoder's window.
        """
        return self._sample(self.settings(prompt, **options))

    def generate(
        self, prompt: str, *, image_count: int = 1, **options: Unpack[SamplingOptions]
    ) -> list[GeneratedImage]:
        """Draw ``image_count`` pictures; the other arguments are those of :meth:`settings`.

        Picture ``i`` is drawn from ``seed + i`` alone, so it can be drawn again alone.

        Raises:
            SettingsError: see :meth:`settings`; also for an ``image_count`` below 1.
            MissingComponentError: the bundle lacks a component.
        """
        if image_count < 1:
            raise SettingsError(f"expected image_count of at least 1, got {image_count}")
        first = self.settings(prompt, **options)
        seeds = [first.seed + index for index in range(image_count)]
        draw_noise((1,), seeds[-1], first.rng)  # the last seed is in range, too
        return [self._generate(dataclasses.replace(first, seed=seed)) for seed in seeds]

    def decode(self, latent: npt.NDArray[np.float32]) -> Image:
        """The picture of ``latent``, (1, C, h, w) as a step has it."""
        picture = decode_latent(self._model("image_decoder"), latent, self.bundle.manifest.model.vae)
        return to_image(to_pixels(picture))

    def release(self, *roles: Role) -> None:
        """Let go of the models with ``roles`` (of all of them if none is named) and of their memory."""
        for role in roles or tuple(self._loaded):
            self._loaded.pop(role, None)

    def _generate(self, settings: ImageSettings) -> GeneratedImage:
        *_, last = self._sample(settings)
        return GeneratedImage(self.decode(last.latent), settings)

    def _sample(self, settings: ImageSettings) -> Iterator[Step]:
        guided = is_guided(settings.guidance_scale)
        prompts = [settings.negative_prompt, settings.prompt] if guided else [settings.prompt]
        states = encode_prompts(self._model("text_encoder"), self._tokenizer(), prompts)
        latent = self.bundle.manifest.model.latent
        return sample(
            settings.scheduler,
            guided_denoiser(self._model("denoiser"), states, guidance_scale=settings.guidance_scale),
            draw_noise((1, latent.channels, latent.height, latent.width), settings.seed, settings.rng),
            NoiseSchedule.from_config(self.bundle.noise_config()),
            num_inference_steps=settings.num_inference_steps,
        )

    def _model(self, role: Role) -> LoadedModel:
        if role not in self._loaded:
            component = self.bundle.only(role)
            self._loaded[role] = LoadedModel(component, self._open_model(component))
        return self._loaded[role]

    def _tokenizer(self) -> ClipTokenizer:
        (encoding,) = self.bundle.manifest.model.text_encoders
        return ClipTokenizer.from_folder(self.bundle.path / encoding.tokenizer)

    def _own_scheduler(self) -> str:
        path = self.bundle.manifest.model.scheduler
        name = self.bundle.noise_config().get("_class_name")
        if not isinstance(name, str):
            raise MissingComponentError(f"expected _class_name in {path}, got {name!r}: name a scheduler")
        return name
