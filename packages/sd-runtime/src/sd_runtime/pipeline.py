"""From a bundle and a request to a picture: the few lines that join the rooms.

request -> complete settings (``drawing``) -> latents, step by step (``sampling``) -> pixels (``decoding``) ->
PNG (``png``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Unpack

import numpy as np
import numpy.typing as npt
from sd_bundle import Bundle, BundleComponent, Form, ImageSize, MissingComponentError, PictureSize, Role
from sd_schedulers import Step

from sd_runtime.conditioning.embeddings import read_embeddings
from sd_runtime.conditioning.prompt import Prompts
from sd_runtime.conditioning.text_changes import TextChanges
from sd_runtime.decoding import decoded, previewed, to_image
from sd_runtime.denoiser import Steer
from sd_runtime.drawing import Drawing, drawing_of, kept_of
from sd_runtime.errors import SettingsError
from sd_runtime.foreign import Unstated, open_any
from sd_runtime.forms import form_for, rows_of
from sd_runtime.masking import Kept
from sd_runtime.model import Model, Precision, open_model, precision_of, resolve_engine
from sd_runtime.models import Models
from sd_runtime.png import GeneratedImage
from sd_runtime.previews import PREVIEWS, LatentColours, colours_of, latent_to_rgb
from sd_runtime.request import Request, SamplingOptions, request_of
from sd_runtime.safety import Safety, asked_of, examined
from sd_runtime.sampling import steps_of
from sd_runtime.settings import ImageSettings
from sd_runtime.tasks import TASKS, Task

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_mil.engines import Engine


class Pipeline:
    """A bundle that draws. Networks load when they are first needed and stay until :meth:`release`.

    ``Models`` says which go, and when; with ``reduce_memory`` the denoiser never stays beside others. Threads
    may share a pipeline: each draws what it would draw alone, a network runs once at a time, and what a
    thread draws with stays until its picture is done.

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
        tasks: Sequence[Task] = TASKS,
        size: ImageSize | None = None,
        hires: Pipeline | None = None,
        text: TextChanges | None = None,
    ) -> None:
        """Draw with the models that ``open_model`` returns; :meth:`open` is the usual way in.

        ``engine`` and ``precision`` are what the settings say about them. Of several picture sizes the first
        is drawn, or ``size``. ``tasks`` can be drawn: ``[*TASKS, mine]`` adds one. ``hires`` has the sizes
        that a second pass may draw beside those of ``bundle``. ``text`` is what ``open_model`` does to text
        encoders, so that tokenizers and settings know.
        """
        self.bundle, self.engine, self.precision = bundle.at_size(size), engine, precision
        self.models = Models(self.bundle, open_model, reduce_memory=reduce_memory)
        self.tasks = tuple(tasks)
        self.text = text or TextChanges()
        self.prompts = Prompts(self.models, self.text)
        self.hires = hires
        self._whole, self._open_model = bundle, open_model
        self._others: dict[ImageSize, Pipeline] = {}
        self._forms: dict[Form, tuple[Models, Prompts]] = {}
        self._opening = Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        engine: str | Engine = "auto",
        precision: Precision | None = None,
        reduce_memory: bool = False,
        size: ImageSize | None = None,
        tasks: Sequence[Task] = TASKS,
        unstated: Unstated | None = None,
        hires_bundle: str | Path | None = None,
        embeddings: Mapping[str, str | Path] | None = None,
        clip_skip: int = 1,
    ) -> Pipeline:
        """The pipeline of the bundle at ``path``, or of a folder of Apple's converter or Swift package.

        ``engine`` is a name (:func:`resolve_engine`) or an engine; ``precision``, the arithmetic of the
        portable one; ``size``, one of the picture sizes of the bundle, None its first; ``unstated``, what a
        folder of another tool does not say of its model; ``hires_bundle``, the same model converted for the
        size of a second pass (``hires_scale``), where this bundle does not have it. ``embeddings`` are files
        of textual inversion (safetensors), by what prompts call them; ``clip_skip`` is the layer of the text
        encoders that is read, from the end as the web UI counts: 1 is the usual one, 2 the one before.

        Raises:
            SettingsError: an embedding that does not fit the text encoders, or no such layer.
            BundleError: not a sound bundle, or (MissingComponentError) not one of its sizes.
            EngineError: the engine or the precision is not to be had here.
        """
        resolved = resolve_engine(engine, precision)

        def opened(folder: str | Path, size: ImageSize | None, hires: Pipeline | None) -> Pipeline:
            bundle = open_any(folder, unstated)
            text = TextChanges(read_embeddings(embeddings or {}, bundle), clip_skip)

            def open_component(component: BundleComponent) -> Model:
                prepare = text.preparing(component, bundle, resolved)
                return open_model(bundle, component, engine=resolved, prepare=prepare)

            return cls(
                bundle,
                open_component,
                engine=resolved.name,
                precision=precision_of(resolved),
                reduce_memory=reduce_memory,
                tasks=tasks,
                size=size,
                hires=hires,
                text=text,
            )

        return opened(path, size, None if hires_bundle is None else opened(hires_bundle, None, None))

    @property
    def sizes(self) -> tuple[PictureSize, ...]:
        """What can be drawn in a second pass: every size of the bundle and of the one for hires."""
        return (*self._whole.manifest.model.sizes, *(self.hires.sizes if self.hires else ()))

    def at_size(self, size: ImageSize) -> Pipeline:
        """The pipeline of another size: of the same bundle, or of the one for hires. The prompts are shared.

        Raises:
            MissingComponentError: neither has it.
        """
        if size == self.bundle.manifest.model.image:
            return self
        own = [each.image for each in self._whole.manifest.model.sizes]
        if size not in own and self.hires is not None:
            return self.hires.at_size(size)
        with self._opening:
            if size not in self._others:
                self._others[size] = Pipeline(
                    self._whole,
                    self._open_model,
                    engine=self.engine,
                    precision=self.precision,
                    reduce_memory=self.models.reduce_memory,
                    tasks=self.tasks,
                    size=size,
                    text=self.text,
                )
            return self._others[size]

    @property
    def forms(self) -> tuple[Form, ...]:
        """In which forms the denoiser is there for this size; :attr:`bundle` has the first."""
        return self._whole.forms(self.bundle.manifest.model.image)

    def in_form(self, form: Form) -> tuple[Models, Prompts]:
        """The networks, most of them shared, and the prompts through them, with the denoiser in that form."""
        if form == self.bundle.forms()[0]:
            return self.models, self.prompts
        with self._opening:
            if form not in self._forms:
                models = self.models.of_bundle(self._whole.at_size(self.bundle.manifest.model.image, form))
                self._forms[form] = models, Prompts(models, self.text)
            return self._forms[form]

    def suited(self, settings: ImageSettings, steer: Steer | None = None) -> tuple[Models, Prompts]:
        """As :meth:`in_form`, in the one that a picture with these settings needs.

        ``steer`` says in its attribute ``takes`` the roles of what it runs; without one, all may come.

        Raises:
            SettingsError: there is none; which there are.
        """
        if len(forms := self.forms) <= 1:
            return self.models, self.prompts
        form = form_for(
            forms,
            takes=() if steer is None else getattr(steer, "takes", None),
            rows=rows_of(settings, self.bundle.manifest.model),
            fits=partial(self.prompts.fit, settings),
        )
        return self.in_form(form)

    def settings(self, prompt: str | Request, **options: Unpack[SamplingOptions]) -> ImageSettings:
        """The settings of one picture, complete and checked; nothing is loaded.

        ``options`` are the fields of :class:`Request`, in place of those of a given one.

        Raises:
            SettingsError: a value makes no sense, or has no meaning for this model.
            UserImageError: the image or the mask cannot be read.
            MissingComponentError: the bundle lacks a network that the task runs.
            sd_schedulers.ScheduleError: no scheduler of that name, or one that does not honour a setting.
            TypeError: no option of that name.
        """
        return self._drawing(prompt, options).settings

    def steps(self, prompt: str | Request, **options: Unpack[SamplingOptions]) -> Iterator[Step]:
        """Sample one picture, a step at a time; arguments and errors are those of :meth:`settings`.

        Progress, preview (``pipeline.decode(step.denoised)``) and cancelling (``break``) are the caller's
        loop; the last step's ``latent`` is the picture's. A prompt that is longer than the text encoder's
        window is cut, with a PromptTruncatedWarning.
        """
        drawing = self._drawing(prompt, options)
        return steps_of(drawing, *self.suited(drawing.settings, drawing.steer))

    def generate(
        self,
        prompt: str | Request,
        *,
        image_count: int = 1,
        check_safety: bool = True,
        safety: Safety | None = None,
        **options: Unpack[SamplingOptions],
    ) -> list[GeneratedImage]:
        """Draw ``image_count`` pictures, each from its own seed: ``seed``, ``seed + 1``, ...

        The other arguments and the errors are those of :meth:`settings` and :meth:`finish`.
        """
        policy = asked_of(self.models.bundle, safety, check=check_safety)
        drawings = self._drawing(prompt, options).repeated(image_count)
        return [self._generate(drawing, policy) for drawing in drawings]

    def decode(self, latent: npt.NDArray[np.float32]) -> Image:
        """The picture of ``latent``, (1, C, h, w) as a step has it, in the size that it is for."""
        return decoded(latent, self._drawing_size(latent).models)

    def preview(self, latent: npt.NDArray[np.float32], how: str | None = None) -> Image:
        """What ``latent`` (``step.denoised``, (1, C, h, w)) will look like, at little cost.

        ``how`` is one of :data:`~sd_runtime.PREVIEWS`. By default the tiny VAE that the bundle has for it
        (``preview_decoder``); else one pixel for each of the latent's, where its colours are published (VAEs
        of SD 1, 2 and SDXL); else what the decoder makes of it.

        Raises:
            MissingComponentError: a tiny VAE is asked for, and the bundle has none.
            SettingsError: colours are asked for that nobody has published, or another way.
        """
        return self._drawing_size(latent)._preview(latent, how)

    def check_preview(self, how: str) -> None:
        """Refuse a way to :meth:`preview` that the bundle does not have; errors as there."""
        if how not in PREVIEWS:
            raise SettingsError(f"expected a preview of {', '.join(PREVIEWS)}, got {how!r}")
        if how == "tiny-vae" and not self.bundle.components("preview_decoder"):
            raise MissingComponentError(
                f"expected a tiny VAE for previews (preview_decoder) in {self.bundle.path}, got none: "
                "convert the checkpoint with --preview-vae, or ask for another preview"
            )
        if how == "rgb" and self._colours is None:
            raise SettingsError(
                "expected a VAE of SD 1, 2 or SDXL for previews in rgb, whose colours are published, got "
                f"that of {self.bundle.manifest.model.identifier}: ask for another preview"
            )

    def finish(
        self,
        latent: npt.NDArray[np.float32],
        settings: ImageSettings,
        *,
        check_safety: bool = True,
        safety: Safety | None = None,
        image: Image | str | Path | None = None,
        mask: Image | str | Path | None = None,
    ) -> GeneratedImage:
        """The picture of the last step's ``latent``, checked by the bundle's safety checker if it has one.

        A flagged picture comes out as ``safety`` says; ``check_safety=False`` leaves it unchecked. If neither
        is said it comes out black, and the result's ``safety`` says so where there is no checker; else it has
        the scores. ``image`` and ``mask`` are those of the request, into which a picture of ``mask_blur`` or
        ``padding_mask_crop`` is put back; other pictures do without.

        Raises:
            MissingComponentError: ``safety`` is given, and the bundle has no safety checker.
            SettingsError: ``safety`` is given with ``check_safety=False``, or the settings count on an image
                and a mask that are not given.
        """
        policy = asked_of(self.models.bundle, safety, check=check_safety)
        kept = kept_of(settings, self.bundle.manifest.model.image, image, mask)
        return self._finish(latent, settings, policy, kept)

    def release(self, *roles: Role) -> None:
        """Let go of the models with ``roles`` (of all of them if none is named) and of their memory."""
        self.models.release(roles)
        if not roles or "text_encoder" in roles:
            for prompts in (self.prompts, *(prompts for _, prompts in self._forms.values())):
                prompts.forget()
        for other in (*self._others.values(), *([self.hires] if self.hires else [])):
            other.release(*roles)

    def _preview(self, latent: npt.NDArray[np.float32], how: str | None) -> Image:
        colours = self._colours
        if how is None:
            how = "rgb" if colours is not None else "vae"
            how = "tiny-vae" if self.bundle.components("preview_decoder") else how
        self.check_preview(how)
        if how == "tiny-vae":
            return previewed(latent, self.models)
        if how == "vae" or colours is None:
            return decoded(latent, self.models)
        return to_image(latent_to_rgb(latent, colours))

    @property
    def _colours(self) -> LatentColours | None:
        """Those of the model's latents; a tiny VAE's decoder is no slower."""
        model = self.bundle.manifest.model
        return None if model.vae.encodes == "latents" else colours_of(model.vae, model.latent.channels)

    def _drawing_size(self, latent: npt.NDArray[np.float32]) -> Pipeline:
        """The pipeline that draws latents of that height and width; this one if none does."""
        for size in (self.bundle.manifest.model.sizes[0], *self.sizes):
            if (size.latent.height, size.latent.width) == latent.shape[2:]:
                return self.at_size(size.image)
        return self

    def _drawing(self, prompt: str | Request, options: SamplingOptions) -> Drawing:
        return drawing_of(
            request_of(prompt, options),
            self.bundle,
            self.tasks,
            engine=self.engine,
            precision=self.precision,
            at_size=self.at_size,
            text=self.text,
        )

    def _generate(self, drawing: Drawing, safety: Safety | None) -> GeneratedImage:
        *_, last = steps_of(drawing, *self.suited(drawing.settings, drawing.steer))
        return self._finish(last.latent, drawing.settings, safety, drawing.kept)

    def _finish(
        self,
        latent: npt.NDArray[np.float32],
        settings: ImageSettings,
        safety: Safety | None,
        kept: Kept | None,
    ) -> GeneratedImage:
        painted = self.decode(latent)
        shown, report = examined(kept.around(painted) if kept else painted, self.models, safety)
        has_run = report.status in ("passed", "flagged")
        return GeneratedImage(shown, replace(settings, safety=report if has_run else None), report)
