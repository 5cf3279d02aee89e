"""From a request and a bundle to one picture to draw: complete settings, checked against the model.

Nothing is loaded; given pictures are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sd_bundle import Bundle, ImageSize, MissingComponentError, ModelFacts, Role
from sd_schedulers import resolve, spacing_named

from sd_runtime.conditioning.guidance import is_guided
from sd_runtime.conditioning.text_changes import TextChanges
from sd_runtime.denoiser import Steer
from sd_runtime.errors import SettingsError
from sd_runtime.masking import Kept, masked
from sd_runtime.noise import draw_noise
from sd_runtime.outpainting import outpainted, padded
from sd_runtime.recipes import NO_RECIPE, prepared
from sd_runtime.request import HIRES, SCORES, SIZES, Request
from sd_runtime.scheduling import ALIGN_YOUR_STEPS, check_scheduling, scheduling_of, steps_stated
from sd_runtime.settings import EmbeddingSettings, ImageSettings
from sd_runtime.tasks import hires, image_to_image, inpainting, instruct
from sd_runtime.tasks.refine import START, check_refiner
from sd_runtime.tasks.task import Task
from sd_runtime.user_image import UserImage, opened, prepare_image, prepare_mask

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from sd_runtime.pipeline import Pipeline

#: diffusers' defaults, by what the manifest says of the model.
GUIDANCE_SCALE: Final = 7.5
SDXL_GUIDANCE_SCALE: Final = 5.0
EMBEDDED_GUIDANCE_SCALE: Final = 8.5
STEPS: Final = 20
CONSISTENCY_STEPS: Final = 4
ALIGNED_STEPS: Final = 10
AESTHETIC_SCORE: Final = 6.0
NEGATIVE_AESTHETIC_SCORE: Final = 2.5

#: Those above and those of the tasks, by name: what help texts quote.
DEFAULTS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "steps": STEPS,
        "consistency_steps": CONSISTENCY_STEPS,
        "guidance_scale": GUIDANCE_SCALE,
        "sdxl_guidance_scale": SDXL_GUIDANCE_SCALE,
        "embedded_guidance_scale": EMBEDDED_GUIDANCE_SCALE,
        "strength": image_to_image.STRENGTH,
        "refiner_strength": image_to_image.REFINER_STRENGTH,
        "inpainting_strength": inpainting.STRENGTH,
        "image_guidance_scale": instruct.IMAGE_GUIDANCE_SCALE,
        "aesthetic_score": AESTHETIC_SCORE,
        "negative_aesthetic_score": NEGATIVE_AESTHETIC_SCORE,
        "refiner_start": START,
        "hires_strength": hires.STRENGTH,
    }
)

#: The fields of a request that belong to tasks, and what a request with one of them counts on.
TASK_OPTIONS: Final = {
    "image": "a task that starts from an image",
    "mask": "an image to paint a part of, and a model that does,",
    "strength": "an image to start from",
    "mask_blur": "a mask",
    "mask_content": "a mask",
    "padding_mask_crop": "a mask",
    "image_guidance_scale": "an InstructPix2Pix model",
}
_ARTICLES: Final = {"image": "an image", "mask": "a mask"}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture to draw: its settings, and what they name but do not hold.

    ``larger`` draws the second of two passes; ``kept`` is put back around what was painted.
    """

    settings: ImageSettings
    task: Task
    image: UserImage | None
    mask: UserImage | None
    refiner: Pipeline | None
    steer: Steer | None
    larger: Pipeline | None = None
    kept: Kept | None = None

    def repeated(self, count: int) -> list[Drawing]:
        """The same from other noise, too: from ``seed``, ``seed + 1``, ..., each of which is in range.

        Variations have one seed, and count their variation seed up, as the web UI's.

        Raises:
            SettingsError: a count below 1, or seeds beyond the last.
        """
        if count < 1:
            raise SettingsError(f"expected image_count of at least 1, got {count}")
        settings = self.settings
        name = "seed" if settings.variation_seed is None else "variation_seed"
        first: int = getattr(settings, name)
        draw_noise((1,), first + count - 1, settings.rng)
        own: list[dict[str, Any]] = [{name: seed} for seed in range(first, first + count)]
        return [replace(self, settings=replace(settings, **each)) for each in own]


def drawing_of(
    request: Request,
    bundle: Bundle,
    tasks: Sequence[Task],
    *,
    engine: str,
    precision: str,
    at_size: Callable[[ImageSize], Pipeline],
    text: TextChanges,
) -> Drawing:
    """``request`` with the defaults of the model, checked; errors as :meth:`Pipeline.settings`.

    ``at_size`` gives the pipeline of another size; ``text`` is what was done to the text encoders.
    """
    margins, request = request.outpaint, outpainted(prepared(request, bundle))
    task = task_of(request, bundle, tasks)
    _check_fit(request, task, bundle.manifest.model)
    image, mask, kept = _pictures(request, bundle.manifest.model.image)
    scheduler = resolve(request.scheduler or own_scheduler(bundle))
    model = bundle.manifest.model
    settings = ImageSettings(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        rng=request.rng,
        num_inference_steps=steps_stated(request) or _steps(request, scheduler),
        guidance_scale=_or(request.guidance_scale, _guidance_scale(model)),
        width=model.image.width,
        height=model.image.height,
        model=model.identifier,
        engine=engine,
        precision=precision,
        mode=task.name,
        image_sha256=None if image is None else image.sha256,
        mask_sha256=None if mask is None else mask.sha256,
        original_size=request.original_size,
        crop_top_left=request.crop_top_left,
        target_size=request.target_size,
        recipe=None if request.recipe == NO_RECIPE else request.recipe,
        controls=getattr(request.steer, "controls", None),
        variation_seed=request.variation_seed,
        variation_strength=request.variation_strength,
        outpaint=margins,
        mask_blur=_or_none(request.mask_blur),
        mask_content=request.mask_content,
        padding_mask_crop=request.padding_mask_crop,
        prompt_syntax="a1111" if request.prompt_syntax == "a1111" else None,
        **_of_text(request, text),
        **_of_guidance(request),
        **scheduling_of(request, scheduler, bundle.noise_config()),
    )
    own = {**_of_task(request, task, model), **_of_refiner(request, model), **_of_hires(request, settings)}
    complete = replace(settings, **own)
    _check_guided(complete, model)
    check_scheduling(complete, bundle)
    larger = _larger(complete, model, at_size)
    return Drawing(complete, task, image, mask, request.refiner, request.steer, larger, kept)


def _pictures(request: Request, size: ImageSize) -> tuple[UserImage | None, UserImage | None, Kept | None]:
    """Image and mask at the model's size, and what is kept around the painted part."""
    if request.image is None or request.mask is None:
        image = None if request.image is None else prepare_image(request.image, size)
        return image, None if request.mask is None else prepare_mask(request.mask, size), None
    blur, padding = request.mask_blur, request.padding_mask_crop
    found = masked(request.image, request.mask, size, blur=blur, padding=padding)
    return found.image, found.mask, found.kept


def kept_of(
    settings: ImageSettings,
    size: ImageSize,
    image: Image | str | Path | None,
    mask: Image | str | Path | None,
) -> Kept | None:
    """What a picture of ``settings`` keeps around its painted part, of the request's ``image`` and ``mask``.

    Raises:
        SettingsError: it keeps something, and the image or the mask is missing or another one.
    """
    if settings.mask_blur is None and settings.padding_mask_crop is None:
        return None
    if image is not None and settings.outpaint is not None:
        image, mask = padded(opened(image), settings.outpaint)
    if image is None or mask is None:
        raise SettingsError(
            "expected the image and the mask of a request with mask_blur or padding_mask_crop, which are put "
            f"back around the painted part, got no {'image' if image is None else 'mask'}"
        )
    blur, padding = settings.mask_blur, settings.padding_mask_crop
    found = masked(image, mask, size, blur=blur, padding=padding)
    if (found.image.sha256, found.mask.sha256) != (settings.image_sha256, settings.mask_sha256):
        raise SettingsError("expected the image and the mask that the settings are of, got others")
    return found.kept


def own_scheduler(bundle: Bundle) -> str:
    """The scheduler that the bundle's config was written for.

    Raises:
        MissingComponentError: the config names none.
    """
    name = bundle.noise_config().get("_class_name")
    if not isinstance(name, str):
        path = bundle.manifest.model.scheduler
        raise MissingComponentError(f"expected _class_name in {path}, got {name!r}: name a scheduler")
    return name


def task_of(request: Request, bundle: Bundle, tasks: Sequence[Task]) -> Task:
    """The task that is named, or the one that the given pictures ask for.

    Raises:
        SettingsError: no task of that name for this kind of model, or a picture is missing.
        MissingComponentError: the bundle lacks a network that the task runs.
    """
    model = bundle.manifest.model
    suiting = [task for task in tasks if model.task in task.models and request.task in (None, task.name)]
    if not suiting:
        names = ", ".join(task.name for task in tasks if model.task in task.models)
        raise SettingsError(f"expected a task of {names} for {model.identifier}, got {request.task!r}")
    possible = [task for task in suiting if not _missing(request, task)]
    if not possible:
        missing = _missing(request, min(suiting, key=lambda task: len(task.needs)))[0]
        wanted = _ARTICLES.get(missing, missing)
        raise SettingsError(f"expected {wanted} for the {model.task} model {model.identifier}, got none")
    chosen = max(possible, key=lambda task: len(task.needs))
    for role in chosen.loads:
        bundle.only(role)
    return chosen


def _missing(request: Request, task: Task) -> list[str]:
    return [name for name in task.needs if getattr(request, name) is None]


def _check_fit(request: Request, task: Task, model: ModelFacts) -> None:
    """Refuse what this model, in this task, would not look at."""
    honoured = {*task.needs, *task.options, *task.defaults(model)}
    for name, wanted in TASK_OPTIONS.items():
        _refuse_unless(name in honoured, request, (name,), wanted)
    _refuse_unless(task.in_two_passes, request, HIRES, "a picture drawn from noise")
    refiner = request.refiner
    _refuse_unless(refiner is not None, request, ("refiner_start",), "a refiner")
    if refiner is not None:
        _refuse_unless(task.refinable, request, ("refiner",), "a picture drawn as a whole")
        check_refiner(model, refiner.bundle.manifest.model)
    ids = {each.conditioning.time_ids for each in _models(request, model)}
    _refuse_unless(ids != {"none"}, request, SIZES, "an SDXL model, which is told sizes")
    _refuse_unless("aesthetic_score" in ids, request, SCORES, "a model that is told an aesthetic score")


def _models(request: Request, model: ModelFacts) -> list[ModelFacts]:
    """Those that take part in the picture."""
    refiner = request.refiner
    return [model] if refiner is None else [model, refiner.bundle.manifest.model]


def _refuse_unless(fits: bool, request: Request, names: Sequence[str], wanted: str) -> None:
    for name in names:
        value = getattr(request, name)
        if not fits and value is not None:
            shown = f"{name} {value!r}" if isinstance(value, int | float | str | tuple) else name
            raise SettingsError(f"expected {wanted} for {name}, got {shown} without")


def _steps(request: Request, scheduler: str) -> int:
    """The tables of Align Your Steps have ten; consistency models need few."""
    if request.spacing is not None and spacing_named(request.spacing).name == ALIGN_YOUR_STEPS:
        return ALIGNED_STEPS
    return CONSISTENCY_STEPS if scheduler in ("lcm", "tcd") else STEPS


def _guidance_scale(model: ModelFacts) -> float:
    if model.conditioning.guidance_embedding:
        return EMBEDDED_GUIDANCE_SCALE
    return SDXL_GUIDANCE_SCALE if model.family in ("sdxl", "sdxl-refiner") else GUIDANCE_SCALE


#: What says how to guide.
_GUIDING = ("guidance_method", "guidance_rescale", "guidance_start", "guidance_end")


def _of_guidance(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in _GUIDING}


def _check_guided(settings: ImageSettings, model: ModelFacts) -> None:
    """Refuse ways to guide where there is no guidance, or one by three predictions."""
    asked = [name for name in _GUIDING if getattr(settings, name) is not None]
    if not asked:
        return
    if not is_guided(settings, model):
        scale = settings.guidance_scale
        raise SettingsError(f"expected guidance for {asked[0]}, got a guidance_scale of {scale:g}: none")
    if settings.image_guidance_scale is not None:
        raise SettingsError(
            f"expected a task without an image guidance scale for {asked[0]}, got {settings.mode}"
        )


def _of_task(request: Request, task: Task, model: ModelFacts) -> dict[str, Any]:
    return {name: _or(getattr(request, name), value) for name, value in task.defaults(model).items()}


def _of_refiner(request: Request, model: ModelFacts) -> dict[str, Any]:
    """What a refiner is told, whether it draws alone or ends the picture."""
    models = _models(request, model)
    own: dict[str, Any] = {}
    if any(each.conditioning.time_ids == "aesthetic_score" for each in models):
        own["aesthetic_score"] = _or(request.aesthetic_score, AESTHETIC_SCORE)
        own["negative_aesthetic_score"] = _or(request.negative_aesthetic_score, NEGATIVE_AESTHETIC_SCORE)
    if len(models) > 1:
        own["refiner"] = models[-1].identifier
        own["refiner_start"] = _or(request.refiner_start, START)
    return own


def _of_text(request: Request, text: TextChanges) -> dict[str, Any]:
    """What was done to the text encoders, which a request can only count on."""
    have = tuple(EmbeddingSettings(each.name, each.sha256) for each in text.embeddings)
    if request.clip_skip not in (None, text.clip_skip):
        raise SettingsError(
            f"expected a pipeline that was opened with clip_skip {request.clip_skip}, got {text.clip_skip}"
        )
    missing = [each for each in request.embeddings or () if each not in have]
    if missing:
        raise SettingsError(
            f"expected a pipeline that was opened with the embedding {missing[0].name!r} (sha256 "
            f"{missing[0].sha256[:10]}…), got {', '.join(each.name for each in have) or 'none'}"
        )
    return {"clip_skip": text.clip_skip if text.clip_skip > 1 else None, "embeddings": have or None}


def _of_hires(request: Request, settings: ImageSettings) -> dict[str, Any]:
    """What says how to draw over the upscaled picture, complete."""
    if request.hires_scale is None:
        return {}
    return {
        "hires_scale": float(request.hires_scale),
        "hires_strength": _or(request.hires_strength, hires.STRENGTH),
        "hires_steps": request.hires_steps or settings.num_inference_steps,
        "hires_upscaler": request.hires_upscaler or hires.UPSCALER,
    }


def _larger(
    settings: ImageSettings, model: ModelFacts, at_size: Callable[[ImageSize], Pipeline]
) -> Pipeline | None:
    """The pipeline of the second pass, if there is one, which can do what the settings ask of it."""
    if settings.hires_scale is None:
        return None
    size = hires.larger_size(model.image, settings.hires_scale)
    try:
        larger = at_size(size)
    except MissingComponentError as error:
        width, height = (side * settings.hires_scale for side in (model.latent.width, model.latent.height))
        raise SettingsError(
            f"expected networks for pictures of {size} for hires_scale {settings.hires_scale:g}, got none "
            f"({error}): convert the checkpoint again with --latent-w {width:g} --latent-h {height:g}, and "
            "give that bundle as the hires bundle"
        ) from None
    facts = larger.bundle.manifest.model
    hires.check_larger(model, facts)
    roles: tuple[Role, ...] = ("denoiser", "image_decoder")
    for role in (*roles, *(("image_encoder",) if settings.hires_upscaler == "lanczos" else ())):
        larger.bundle.only(role)
    check_scheduling(hires.second_pass(settings, facts), larger.bundle)
    return larger


def _or_none(value: float | None) -> float | None:
    return None if value is None else float(value)


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
