"""From the options that a caller gives to one checked request; nothing is loaded, given pictures are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sd_bundle import Bundle, MissingComponentError, ModelFacts
from sd_schedulers import resolve, schedule_type

from sd_runtime.errors import SettingsError
from sd_runtime.noise import draw_noise
from sd_runtime.settings import ImageSettings, Mode, SamplingOptions
from sd_runtime.user_image import UserImage, prepare_image, prepare_mask

if TYPE_CHECKING:
    from sd_runtime.pipeline import Pipeline

#: diffusers' defaults, by what the manifest says of the model.
GUIDANCE_SCALE, SDXL_GUIDANCE_SCALE, EMBEDDED_GUIDANCE_SCALE = 7.5, 5.0, 8.5
IMAGE_GUIDANCE_SCALE = 1.5
STRENGTH, REFINER_STRENGTH, INPAINTING_STRENGTH = 0.8, 0.3, 1.0
AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE = 6.0, 2.5
REFINER_START = 0.8
STEPS, CONSISTENCY_STEPS = 20, 4

SIZES = ("original_size", "crop_top_left", "target_size")
SCORES = ("aesthetic_score", "negative_aesthetic_score")


@dataclass(frozen=True, slots=True)
class Request:
    """The settings of one picture, and what they name but do not hold."""

    settings: ImageSettings
    image: UserImage | None
    mask: UserImage | None
    refiner: Pipeline | None


def make_request(
    bundle: Bundle, prompt: str, options: SamplingOptions, *, engine: str, precision: str
) -> Request:
    """``options`` with their defaults, checked; errors as :meth:`Pipeline.settings`."""
    _check_names(options)
    model, refiner = bundle.manifest.model, options.get("refiner")
    mode = _mode(bundle, options)
    _check_fit(model, options, mode)
    if refiner is not None:
        _check_refiner(model, refiner.bundle.manifest.model)
    image, mask = options.get("image"), options.get("mask")
    prepared = None if image is None else prepare_image(image, model.image)
    prepared_mask = None if mask is None else prepare_mask(mask, model.image)
    scheduler = resolve(options.get("scheduler") or own_scheduler(bundle))
    seed, rng = options.get("seed", 93), options.get("rng", "numpy")
    draw_noise((1,), seed, rng)  # refuses an unknown generator or seed before any work is done
    settings = ImageSettings(
        prompt=prompt,
        negative_prompt=options.get("negative_prompt", ""),
        seed=seed,
        rng=rng,
        scheduler=scheduler,
        schedule_type=schedule_type(scheduler, bundle.noise_config()),
        num_inference_steps=_steps(model, options, scheduler),
        guidance_scale=_finite(options, "guidance_scale", _guidance_scale(model)),
        width=model.image.width,
        height=model.image.height,
        model=model.identifier,
        engine=engine,
        precision=precision,
        mode=mode,
        image_sha256=None if prepared is None else prepared.sha256,
        mask_sha256=None if prepared_mask is None else prepared_mask.sha256,
        strength=_strength(model, options, mode),
        image_guidance_scale=(
            _finite(options, "image_guidance_scale", IMAGE_GUIDANCE_SCALE)
            if mode == "instruct-pix2pix"
            else None
        ),
        original_size=options.get("original_size"),
        crop_top_left=options.get("crop_top_left"),
        target_size=options.get("target_size"),
        aesthetic_score=_score(options, "aesthetic_score", AESTHETIC_SCORE, model),
        negative_aesthetic_score=_score(options, "negative_aesthetic_score", NEGATIVE_AESTHETIC_SCORE, model),
        refiner=None if refiner is None else refiner.bundle.manifest.model.identifier,
        refiner_start=None if refiner is None else _refiner_start(options),
    )
    return Request(settings, prepared, prepared_mask, refiner)


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


def _check_names(options: SamplingOptions) -> None:
    """What Python itself would say of a keyword that no parameter has."""
    known = SamplingOptions.__annotations__
    for name in options:
        if name not in known:
            raise TypeError(f"expected an option of {', '.join(known)}; got {name!r}")


def _mode(bundle: Bundle, options: SamplingOptions) -> Mode:
    task = bundle.manifest.model.task
    if options.get("image") is not None:
        bundle.only("image_encoder")
        return "image-to-image" if task == "text-to-image" else task
    if task != "text-to-image":
        raise SettingsError(f"expected an image for the {task} model {_name(bundle)}, got none")
    return task


def _name(bundle: Bundle) -> str:
    return bundle.manifest.model.identifier


def _check_fit(model: ModelFacts, options: SamplingOptions, mode: Mode) -> None:
    """Refuse options that this model, in this mode, would not look at."""
    if options.get("mask") is not None and mode != "inpainting":
        raise SettingsError(
            f"expected an inpainting model (its UNet takes 9 channels) for a mask, got {model.identifier}, "
            f"which is for {model.task}: convert an inpainting checkpoint, or leave the mask out"
        )
    if mode == "inpainting" and options.get("mask") is None:
        raise SettingsError(f"expected a mask for the inpainting model {model.identifier}, got none")
    _refuse_unless(mode in ("image-to-image", "inpainting"), options, ("strength",), "an image to start from")
    _refuse_unless(mode == "instruct-pix2pix", options, ("image_guidance_scale",), "an InstructPix2Pix model")
    refiner = options.get("refiner")
    _refuse_unless(refiner is not None, options, ("refiner_start",), "a refiner")
    told = {model.conditioning.time_ids}
    if refiner is not None:
        told.add(refiner.bundle.manifest.model.conditioning.time_ids)
    _refuse_unless(told != {"none"}, options, SIZES, "an SDXL model, which is told sizes")
    _refuse_unless("aesthetic_score" in told, options, SCORES, "a model that is told an aesthetic score")
    _check_sizes(options)


def _refuse_unless(fits: bool, options: SamplingOptions, names: tuple[str, ...], needed: str) -> None:
    for name in names:
        if not fits and options.get(name) is not None:
            raise SettingsError(f"expected {needed} for {name}, got {name} {options.get(name)!r} without")


def _check_sizes(options: SamplingOptions) -> None:
    for name in SIZES:
        size, least = options.get(name), 0 if name == "crop_top_left" else 1
        match size:
            case None:
                continue
            case (int(height), int(width)) if least <= min(height, width) and max(height, width) <= 2**15:
                continue
        raise SettingsError(f"expected {name} to be two whole numbers from {least} to {2**15}, got {size!r}")


def _check_refiner(base: ModelFacts, refiner: ModelFacts) -> None:
    if base.latent != refiner.latent or base.task != "text-to-image" or refiner.task != "text-to-image":
        raise SettingsError(
            f"expected a refiner for latents of {base.latent} of a text-to-image model, got "
            f"{refiner.identifier} with {refiner.latent} for {base.identifier}: convert both at one size"
        )


def _steps(model: ModelFacts, options: SamplingOptions, scheduler: str) -> int:
    steps = options.get("num_inference_steps")
    if steps is None:
        is_few = scheduler in ("lcm", "tcd") or model.denoiser.distillation == "lcm"
        return CONSISTENCY_STEPS if is_few else STEPS
    if steps < 1:
        raise SettingsError(f"expected num_inference_steps of at least 1, got {steps!r}")
    return steps


def _guidance_scale(model: ModelFacts) -> float:
    if model.conditioning.guidance_embedding:
        return EMBEDDED_GUIDANCE_SCALE
    return SDXL_GUIDANCE_SCALE if model.family in ("sdxl", "sdxl-refiner") else GUIDANCE_SCALE


def _strength(model: ModelFacts, options: SamplingOptions, mode: Mode) -> float | None:
    if mode not in ("image-to-image", "inpainting"):
        return None
    usual = REFINER_STRENGTH if model.family == "sdxl-refiner" else STRENGTH
    return _share(options, "strength", INPAINTING_STRENGTH if mode == "inpainting" else usual)


def _score(options: SamplingOptions, name: str, default: float, model: ModelFacts) -> float | None:
    refiner = options.get("refiner")
    models = [model] if refiner is None else [model, refiner.bundle.manifest.model]
    told = any(each.conditioning.time_ids == "aesthetic_score" for each in models)
    return _finite(options, name, default) if told else None


def _refiner_start(options: SamplingOptions) -> float:
    start = _share(options, "refiner_start", REFINER_START)
    if start == 1:
        raise SettingsError("expected refiner_start below 1, got 1: leave the refiner out")
    return start


def _share(options: SamplingOptions, name: str, default: float) -> float:
    value = _finite(options, name, default)
    if not 0 < value <= 1:
        raise SettingsError(f"expected {name} above 0 and up to 1, got {value!r}")
    return value


def _finite(options: SamplingOptions, name: str, default: float) -> float:
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise SettingsError(f"expected a finite {name}, got {value!r}")
    return float(value)
