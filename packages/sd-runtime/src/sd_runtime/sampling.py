"""One picture, step by step: where to start, what the denoiser is told, and the sampler between the two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_schedulers import Resumed, Step, sample

from sd_runtime.conditioning.conditions import conditions
from sd_runtime.conditioning.prompt import EncodedText, Prompts
from sd_runtime.denoiser import Denoiser, Steer, guided_denoiser, unsteered
from sd_runtime.drawing import Drawing
from sd_runtime.models import Models
from sd_runtime.noise import NoiseStream
from sd_runtime.scheduling import noise_schedule, sampler_arguments
from sd_runtime.settings import ImageSettings
from sd_runtime.tasks.refine import START, refined
from sd_runtime.tasks.task import Begun, Given

if TYPE_CHECKING:
    from sd_runtime.pipeline import Pipeline

Float: TypeAlias = npt.NDArray[np.float32]
Texts: TypeAlias = tuple[EncodedText, EncodedText | None]


def steps_of(drawing: Drawing, models: Models, prompts: Prompts) -> Iterator[Step]:
    """The steps of ``drawing``; prompts are encoded and networks loaded at the call, one after the other."""
    settings = drawing.settings
    texts = prompts.of(settings)
    noise = NoiseStream(settings.seed, settings.rng)
    begun = _begun(drawing, models, noise)
    steer = drawing.steer or unsteered
    steps = _sampled(begun, texts, settings, models, noise, steer=steer, end=settings.refiner_start or 1.0)
    return steps if drawing.refiner is None else _to_refiner(steps, drawing.refiner, settings, models, noise)


def _to_refiner(
    steps: Iterator[Step], refiner: Pipeline, settings: ImageSettings, models: Models, noise: NoiseStream
) -> Iterator[Step]:
    def make_room() -> None:
        if models.reduce_memory or refiner.models.is_short_for_denoiser():
            models.release(["denoiser"])

    def resume(base: Resumed) -> Iterator[Step]:
        texts = refiner.prompts.of(settings)
        return _sampled(Begun(base), texts, settings, refiner.models, noise)

    start = settings.refiner_start or START
    return refined(steps, resume, start=start, asked=settings.num_inference_steps, make_room=make_room)


def _begun(drawing: Drawing, models: Models, noise: NoiseStream) -> Begun:
    """Where the task starts. The networks that it runs are not held any more when the denoiser loads."""
    return drawing.task.begin(
        Given(
            settings=drawing.settings,
            model=models.bundle.manifest.model,
            schedule=noise_schedule(drawing.settings, models.bundle),
            noise=noise,
            image=drawing.image,
            mask=drawing.mask,
            load=models.only,
        )
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
    unet, (positive, negative) = models.only("denoiser"), texts
    given = conditions(
        unet,
        models.bundle.manifest.model,
        settings,
        positive=positive,
        negative=negative,
        extra_channels=begun.extra_channels,
    )
    end = 1.0 if settings.guidance_end is None else settings.guidance_end
    return guided_denoiser(unet, given, steer, total=total, guided=(settings.guidance_start or 0.0, end))
