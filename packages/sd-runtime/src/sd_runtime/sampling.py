"""One picture, step by step: where to start, what the denoiser is told, and the sampler between the two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_schedulers import Resumed, Step, sample

from sd_runtime.conditioning.conditions import conditions
from sd_runtime.conditioning.prompt import Prompts, Texts
from sd_runtime.decoding import decoded
from sd_runtime.denoiser import Denoiser, Steer, guided_denoiser, unsteered
from sd_runtime.drawing import Drawing
from sd_runtime.models import Models
from sd_runtime.noise import NoiseStream
from sd_runtime.scheduling import noise_schedule, sampler_arguments
from sd_runtime.settings import ImageSettings
from sd_runtime.tasks import hires
from sd_runtime.tasks.refine import START, refined
from sd_runtime.tasks.task import Begun, Given
from sd_runtime.user_image import UserImage, prepare_image

if TYPE_CHECKING:
    from sd_runtime.pipeline import Pipeline

Float: TypeAlias = npt.NDArray[np.float32]


def steps_of(drawing: Drawing, models: Models, prompts: Prompts) -> Iterator[Step]:
    """The steps of ``drawing``; prompts are encoded and networks loaded at the call, one after the other."""
    settings = drawing.settings
    texts = prompts.of(settings)
    noise = NoiseStream(settings.seed, settings.rng)
    begun = _begun(drawing, models, noise)
    steer = drawing.steer or unsteered
    steps = _sampled(begun, texts, settings, models, noise, steer=steer, end=settings.refiner_start or 1.0)
    if drawing.larger is not None:
        return _in_two_passes(steps, drawing.larger, settings, models, texts)
    return steps if drawing.refiner is None else _to_refiner(steps, drawing.refiner, settings, models, noise)


def _in_two_passes(
    steps: Iterator[Step], larger: Pipeline, settings: ImageSettings, models: Models, texts: Texts
) -> Iterator[Step]:
    """``steps`` at the model's size, then those of ``larger``, from the same seed anew as the web UI does."""
    upscaler, facts = settings.hires_upscaler or hires.UPSCALER, larger.bundle.manifest.model
    own = hires.second_pass(settings, facts)

    def second(latent: Float) -> Iterator[Step]:
        picture = None if upscaler == "latent" else prepare_image(decoded(latent, models), facts.image)
        networks, _ = larger.suited(own)
        _make_room(models, networks)
        noise = NoiseStream(own.seed, own.rng)
        begun = hires.begin(_given(own, networks, noise, image=picture), latent, upscaler)
        return _sampled(begun, texts, own, networks, noise)

    return hires.in_two_passes(steps, second, more=settings.hires_steps or settings.num_inference_steps)


def _make_room(models: Models, later: Models) -> None:
    """The denoiser of ``models`` goes where that of ``later`` would have no room beside it."""
    if models.reduce_memory or later.is_short_for_denoiser():
        models.release(["denoiser"])


def _to_refiner(
    steps: Iterator[Step], refiner: Pipeline, settings: ImageSettings, models: Models, noise: NoiseStream
) -> Iterator[Step]:
    networks, prompts = refiner.suited(settings)

    def resume(base: Resumed) -> Iterator[Step]:
        return _sampled(Begun(base), prompts.of(settings), settings, networks, noise)

    start = settings.refiner_start or START
    make_room = partial(_make_room, models, networks)
    return refined(steps, resume, start=start, asked=settings.num_inference_steps, make_room=make_room)


def _begun(drawing: Drawing, models: Models, noise: NoiseStream) -> Begun:
    """Where the task starts. The networks that it runs are not held any more when the denoiser loads."""
    given = _given(drawing.settings, models, noise, image=drawing.image, mask=drawing.mask)
    return drawing.task.begin(given)


def _given(
    settings: ImageSettings,
    models: Models,
    noise: NoiseStream,
    *,
    image: UserImage | None,
    mask: UserImage | None = None,
) -> Given:
    return Given(
        settings=settings,
        model=models.bundle.manifest.model,
        schedule=noise_schedule(settings, models.bundle),
        noise=noise,
        image=image,
        mask=mask,
        load=models.only,
    )


def _sampled(
    begun: Begun,
    texts: Texts,
    settings: ImageSettings,
    models: Models,
    noise: NoiseStream,
    *,
    steer: Steer = unsteered,
    end: float = 1.0,
) -> Iterator[Step]:
    bundle = models.bundle
    schedule, facts = noise_schedule(settings, bundle), bundle.manifest.model

    def sampled(model: Denoiser, step_noise: Iterable[Float]) -> Iterator[Step]:
        own = sampler_arguments(settings, schedule, facts)
        return sample(settings.scheduler, model, begun.start, schedule, end=end, step_noise=step_noise, **own)

    def evaluations() -> int:
        """How often the denoiser will be asked, as the sampler says after its first step, of nothing."""
        nothing = np.zeros(facts.latent_shape, np.float32)
        return next(sampled(lambda _, __: nothing, repeat(nothing))).total

    is_everywhere = settings.guidance_start is None and settings.guidance_end is None
    total = 0 if steer is unsteered and is_everywhere else evaluations()
    denoiser = _denoiser(begun, texts, settings, models, steer, total=total)
    steps = sampled(begun.around(denoiser), noise.endless(facts.latent_shape))
    return map(begun.shown, steps)


def _denoiser(
    begun: Begun, texts: Texts, settings: ImageSettings, models: Models, steer: Steer, *, total: int
) -> Denoiser:
    unet = models.only("denoiser")
    given = conditions(
        unet,
        models.bundle.manifest.model,
        settings,
        positive=texts.positive,
        negative=texts.negative,
        empty=texts.empty,
        extra_channels=begun.extra_channels,
    )
    end = 1.0 if settings.guidance_end is None else settings.guidance_end
    return guided_denoiser(unet, given, steer, total=total, guided=(settings.guidance_start or 0.0, end))
