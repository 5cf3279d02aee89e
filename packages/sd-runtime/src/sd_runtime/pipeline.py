"""From a bundle and a prompt to a picture.

Each arrow is a function of its own, in the file named: options -> settings (``request``), prompt -> hidden
states (``text``), picture -> latent (``user_image``, ``starting``), all that -> guided denoiser
(``conditions``, ``guidance``) -> latents, step by step (sd_schedulers) -> pixels (``picture``) -> PNG
(``png``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Unpack

import numpy as np
import numpy.typing as npt
from sd_bundle import Bundle, BundleComponent, ImageSize, Role, open_bundle
from sd_schedulers import NoiseSchedule, Resumed, Start, Step, sample
from sd_tokenize import ClipTokenizer

from sd_runtime import memory
from sd_runtime.conditions import conditions, is_guided
from sd_runtime.errors import SettingsError
from sd_runtime.guidance import Denoiser, guided_denoiser
from sd_runtime.model import LoadedModel, Model, Precision, open_model, precision_of, resolve_engine
from sd_runtime.noise import NoiseStream, draw_noise
from sd_runtime.picture import decode_latent, to_image, to_pixels
from sd_runtime.png import GeneratedImage
from sd_runtime.request import Request, make_request
from sd_runtime.safety import blacked_out, is_flagged
from sd_runtime.settings import ImageSettings, SamplingOptions
from sd_runtime.starting import beside, start
from sd_runtime.text import EncodedText, TextEncoder, encode_prompt, warn_of_truncation

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_mil.engines import Engine

#: Encoded prompts that a pipeline remembers: those of a picture, and of the one before.
_REMEMBERED = 4


class Pipeline:
    """A bundle that draws. Models load when they are first needed and stay until :meth:`release`.

    Where memory is short, those that wait are let go before the next one loads; with ``reduce_memory`` the
    denoiser, by far the largest, never stays beside others, and loads anew for every picture.

    Threads may share a pipeline: each draws what it would draw alone, and each network runs once at a time.
    What a thread draws with stays in memory until its picture is done, whatever is released meanwhile, so
    that memory is bounded as above only where one draws at a time.

    A bundle that is replaced while a pipeline of it is open has to be opened again (IntegrityError).
    """

    def __init__(
        self,
        bundle: Bundle,
        open_model: Callable[[BundleComponent], Model],
        *,
        engine: str = "custom",
        precision: str = "fp32",
        reduce_memory: bool = False,
    ) -> None:
        """Draw with the models that ``open_model`` returns; :meth:`open` is the usual way in.

        ``engine`` and ``precision`` are what the settings of a picture say about them. Of a bundle with
        several picture sizes (``bundle.at_size(size)`` chooses) the first is drawn.
        """
        self.bundle, self.engine, self.precision = bundle.at_size(), engine, precision
        self.reduce_memory = reduce_memory
        self._open_model = open_model
        self._loaded: dict[str, LoadedModel] = {}
        self._texts: dict[str, EncodedText] = {}
        self._lock = RLock()  # of both; held while a network loads, never while one runs

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        engine: str | Engine = "auto",
        precision: Precision | None = None,
        reduce_memory: bool = False,
        size: ImageSize | None = None,
    ) -> Pipeline:
        """The pipeline of the bundle at ``path``.

        ``engine`` is ``coreml`` (macOS only), ``portable`` (OpenVINO), ``reference`` (numpy, slow), or
        ``auto``: Core ML on macOS, portable elsewhere. ``precision`` is the arithmetic of portable, ``fp32``
        or ``bf16``; Core ML always computes as the package says. ``size`` is one of the picture sizes of the
        bundle, None its first.

        Raises:
            BundleError: not a sound bundle, or (MissingComponentError) not one of its sizes.
            EngineError: the engine or the precision is not to be had here.
        """
        resolved = resolve_engine(engine, precision)
        bundle = open_bundle(path).at_size(size)
        return cls(
            bundle,
            partial(open_model, bundle, engine=resolved),
            engine=resolved.name,
            precision=precision_of(resolved),
            reduce_memory=reduce_memory,
        )

    def settings(self, prompt: str, **options: Unpack[SamplingOptions]) -> ImageSettings:
        """The settings of one picture, complete and checked; nothing is loaded.

        Args:
            prompt: what to draw; for InstructPix2Pix, what to change.
            options: these, each with a default.

                - ``negative_prompt``: what not to draw; without effect unless the picture is guided.
                - ``seed`` (93) of the noise; ``rng`` says whose generator makes the noise of it: ``numpy``,
                  as in Apple's Python pipeline, or ``torch``, as in diffusers on a CPU.
                - ``num_inference_steps``: how many steps to sample; 20, or 4 with LCM.
                - ``guidance_scale``: how far to follow the prompt; up to 1 there is no guidance, and half the
                  work. 7.5; 5 for SDXL; 8.5 where the scale is told to the denoiser (LCM), which then has no
                  negative prompt. Turbo models want 0.
                - ``scheduler``: a name that sd_schedulers knows; by default the one that the bundle names.
                - ``image``: a PIL image or a file to start from, to repaint or to change; stretched to the
                  model's size if it has another.
                - ``mask``: for inpainting; what is white in it is painted anew.
                - ``strength``: how much of the schedule runs on an image, 0.8 (refiners 0.3); of inpainting,
                  1: from noise alone.
                - ``image_guidance_scale``: how far InstructPix2Pix follows the image, 1.5.
                - ``original_size``, ``crop_top_left``, ``target_size``: what SDXL is told of the picture,
                  each (height, width), by default the model's size and (0, 0).
                - ``aesthetic_score``, ``negative_aesthetic_score``: what the refiner is told, 6 and 2.5.
                - ``refiner``: the pipeline that takes over at ``refiner_start``, 0.8 of the time.

        Raises:
            SettingsError: a value makes no sense, or has no meaning for this model.
            UserImageError: the image or the mask cannot be read.
            MissingComponentError: an image for a bundle without an image encoder.
            sd_schedulers.ScheduleError: no scheduler of that name.
            TypeError: no option of that name.
        """
        return self._request(prompt, options).settings

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
        return self._sample(self._request(prompt, options))

    def generate(
        self,
        prompt: str,
        *,
        image_count: int = 1,
        check_safety: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> list[GeneratedImage]:
        """Draw ``image_count`` pictures; the other arguments are those of :meth:`settings`.

        Picture ``i`` is drawn from ``seed + i`` alone, so it can be drawn again alone. ``check_safety`` is
        that of :meth:`finish`.

        Raises:
            SettingsError: see :meth:`settings`; also for an ``image_count`` below 1.
            MissingComponentError: the bundle lacks a component.
        """
        if image_count < 1:
            raise SettingsError(f"expected image_count of at least 1, got {image_count}")
        first = self._request(prompt, options)
        seeds = [first.settings.seed + index for index in range(image_count)]
        draw_noise((1,), seeds[-1], first.settings.rng)  # the last seed is in range, too
        return [self._generate(_with_seed(first, seed), check_safety) for seed in seeds]

    def decode(self, latent: npt.NDArray[np.float32]) -> Image:
        """The picture of ``latent``, (1, C, h, w) as a step has it."""
        picture = decode_latent(self._model("image_decoder"), latent, self.bundle.manifest.model.vae)
        return to_image(to_pixels(picture))

    def finish(
        self, latent: npt.NDArray[np.float32], settings: ImageSettings, *, check_safety: bool = True
    ) -> GeneratedImage:
        """The picture of the last step's ``latent``, checked by the bundle's safety checker if it has one.

        A flagged picture comes out black, with ``flagged`` set; ``check_safety=False`` leaves it unchecked.
        """
        image = self.decode(latent)
        if not check_safety or not self.bundle.components("safety_checker"):
            return GeneratedImage(image, settings)
        flagged = is_flagged(self._model("safety_checker"), image)
        return GeneratedImage(blacked_out(image) if flagged else image, settings, flagged=flagged)

    def release(self, *roles: Role) -> None:
        """Let go of the models with ``roles`` (of all of them if none is named) and of their memory."""
        with self._lock:
            for name, model in tuple(self._loaded.items()):
                if not roles or model.component.role in roles:
                    del self._loaded[name]
            if not roles or "text_encoder" in roles:
                self._texts.clear()

    def is_short_of_memory(self) -> bool:
        """Whether the denoiser has yet to be loaded and may not fit into what is left of the memory."""
        component = self.bundle.only("denoiser")
        return component.name not in self._loaded and memory.is_short_for(component, self.bundle)

    def _request(self, prompt: str, options: SamplingOptions) -> Request:
        return make_request(self.bundle, prompt, options, engine=self.engine, precision=self.precision)

    def _generate(self, request: Request, check_safety: bool) -> GeneratedImage:
        *_, last = self._sample(request)
        return self.finish(last.latent, request.settings, check_safety=check_safety)

    def _sample(self, request: Request) -> Iterator[Step]:
        settings = request.settings
        texts = self._encode(settings)
        noise = NoiseStream(settings.seed, settings.rng)
        model = self.bundle.manifest.model
        encoder = self._model("image_encoder") if request.image is not None else None
        begun = start(request, model, encoder, noise)
        extra = beside(request, model, encoder, noise)
        denoiser = self._denoiser(settings, texts, extra)
        end = 1.0 if settings.refiner_start is None else settings.refiner_start
        steps = self._integrate(settings, denoiser, begun, noise, end=end)
        if request.refiner is None:
            return steps
        return self._refined(steps, end, request.refiner, settings, noise)

    def _integrate(
        self,
        settings: ImageSettings,
        denoiser: Denoiser,
        begun: Start,
        noise: NoiseStream,
        *,
        end: float = 1.0,
    ) -> Iterator[Step]:
        return sample(
            settings.scheduler,
            denoiser,
            begun,
            NoiseSchedule.from_config(self.bundle.noise_config()),
            num_inference_steps=settings.num_inference_steps,
            end=end,
            step_noise=noise.endless(self.bundle.manifest.model.latent_shape),
        )

    def _refined(
        self,
        steps: Iterator[Step],
        progress: float,
        refiner: Pipeline,
        settings: ImageSettings,
        noise: NoiseStream,
    ) -> Iterator[Step]:
        """The steps up to ``progress``, then those of the refiner, numbered through."""
        for step in steps:
            yield dataclasses.replace(step, total=max(step.total, settings.num_inference_steps))
        del steps  # and with it the hold on the base's denoiser
        if self.reduce_memory or refiner.is_short_of_memory():
            self.release("denoiser")
        for later in refiner._resume(Resumed(step.latent, progress), settings, noise):
            done = step.index + 1
            yield dataclasses.replace(later, index=done + later.index, total=done + later.total)

    def _resume(self, base: Resumed, settings: ImageSettings, noise: NoiseStream) -> Iterator[Step]:
        """The rest of a picture that another pipeline began."""
        denoiser = self._denoiser(settings, self._encode(settings), None)
        return self._integrate(settings, denoiser, base, noise)

    def _denoiser(
        self,
        settings: ImageSettings,
        texts: tuple[EncodedText, EncodedText | None],
        extra: npt.NDArray[np.float32] | None,
    ) -> Denoiser:
        unet, (positive, negative) = self._model("denoiser"), texts
        told = conditions(
            unet, self.bundle.manifest.model, settings, positive=positive, negative=negative, beside=extra
        )
        return guided_denoiser(unet, told)

    def _encode(self, settings: ImageSettings) -> tuple[EncodedText, EncodedText | None]:
        """The prompt, and what guidance leads away from, if there is any."""
        model = self.bundle.manifest.model
        positive = self._text(settings.prompt)
        if not is_guided(settings, model):
            return positive, None
        if model.conditioning.zero_empty_negative and not settings.negative_prompt:
            return positive, positive.zeroed()
        return positive, self._text(settings.negative_prompt)

    def _text(self, prompt: str) -> EncodedText:
        with self._lock:
            text = self._texts.get(prompt)
        if text is None:
            text = self._encoded(prompt)
            with self._lock:
                self._texts = {**dict(list(self._texts.items())[1 - _REMEMBERED :]), prompt: text}
        warn_of_truncation(text)
        return text

    def _encoded(self, prompt: str) -> EncodedText:
        pooled = self.bundle.manifest.model.conditioning.time_ids != "none"
        return encode_prompt(self._text_encoders(), prompt, length=self._attended(), pooled=pooled)

    def _attended(self) -> int | None:
        """How many tokens the denoiser attends to; None where it does not say."""
        ports = {port.name: port.shape for port in self.bundle.only("denoiser").inputs}
        states = ports.get("encoder_hidden_states")
        return states[-1] if states else None

    def _text_encoders(self) -> list[TextEncoder]:
        encodings = self.bundle.manifest.model.text_encoders
        if not encodings:
            self.bundle.only("text_encoder")  # says what the bundle has instead
        return [
            TextEncoder(
                self._component(self.bundle.component(encoding.component)),
                self._tokenizer(encoding.tokenizer),
                encoding.hidden_states,
            )
            for encoding in encodings
        ]

    def _tokenizer(self, folder: str) -> ClipTokenizer:
        with self.bundle.unchanged(folder):
            return ClipTokenizer.from_folder(self.bundle.path / folder)

    def _model(self, role: Role) -> LoadedModel:
        return self._component(self.bundle.only(role))

    def _component(self, component: BundleComponent) -> LoadedModel:
        with self._lock:
            if component.name not in self._loaded:
                if memory.is_short_for(component, self.bundle) or self._must_be_alone(component):
                    self._loaded.clear()
                self._loaded[component.name] = LoadedModel(component, self._open_model(component))
            return self._loaded[component.name]

    def _must_be_alone(self, component: BundleComponent) -> bool:
        """Whether memory is to be saved, and the denoiser is this one or among those loaded."""
        roles = [component.role, *(model.component.role for model in self._loaded.values())]
        return self.reduce_memory and "denoiser" in roles


def _with_seed(request: Request, seed: int) -> Request:
    return dataclasses.replace(request, settings=dataclasses.replace(request.settings, seed=seed))
