"""A picture asked for: what a caller says of it, checked once, before any model is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from sd_runtime.conditioning.guidance import GUIDANCE
from sd_runtime.errors import SettingsError
from sd_runtime.masking import MASK_CONTENTS
from sd_runtime.noise import Rng, draw_noise
from sd_runtime.settings import EmbeddingSettings, Margins, Size
from sd_runtime.tasks.hires import LARGEST_SCALE, UPSCALERS

if TYPE_CHECKING:
    from PIL.Image import Image

    from sd_runtime.denoiser import Steer
    from sd_runtime.pipeline import Pipeline

SIZES: Final = ("original_size", "crop_top_left", "target_size")
SYNTAXES: Final = ("plain", "a1111")
SCORES: Final = ("aesthetic_score", "negative_aesthetic_score")
HIRES: Final = ("hires_scale", "hires_strength", "hires_steps", "hires_upscaler")
#: What one pass alone takes.
_NOT_IN_TWO_PASSES: Final = ("refiner", "steer", "timesteps", "sigmas")
_FINITE: Final = ("guidance_scale", "image_guidance_scale", "eta", "mu", *SCORES)
#: Of masks, in pixels.
LARGEST_BLUR: Final = 1024
_SHARES: Final = ("strength", "refiner_start", "variation_strength", "hires_strength")


class SamplingOptions(TypedDict, total=False):
    """The fields of :class:`Request` but the prompt, as keyword arguments."""

    negative_prompt: str
    seed: int
    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_method: str | None
    guidance_rescale: float | None
    guidance_start: float | None
    guidance_end: float | None
    scheduler: str | None
    spacing: str | None
    timesteps: Sequence[int] | None
    sigmas: Sequence[float] | None
    eta: float | None
    mu: float | None
    recipe: str | None
    rng: Rng
    task: str | None
    image: Image | str | Path | None
    mask: Image | str | Path | None
    strength: float | None
    image_guidance_scale: float | None
    original_size: Size | None
    crop_top_left: Size | None
    target_size: Size | None
    aesthetic_score: float | None
    negative_aesthetic_score: float | None
    refiner: Pipeline | None
    refiner_start: float | None
    steer: Steer | None
    prompt_syntax: str
    variation_seed: int | None
    variation_strength: float | None
    outpaint: Margins | None
    hires_scale: float | None
    hires_strength: float | None
    hires_steps: int | None
    hires_upscaler: str | None
    clip_skip: int | None
    embeddings: Sequence[EmbeddingSettings] | None
    mask_blur: float | None
    mask_content: str | None
    padding_mask_crop: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller asks of a picture. None leaves it to the model: :meth:`Pipeline.settings` fills it in.

    Args:
        prompt: what to draw; for InstructPix2Pix, what to change.
        negative_prompt: what not to draw; without effect unless the picture is guided.
        seed: of the noise.
        rng: whose generator makes the noise of it: ``numpy``, as in Apple's Python pipeline, ``torch``, as
            in diffusers on a CPU, or ``torch_cuda``, as on an NVIDIA GPU.
        num_inference_steps: how many steps to sample; 20, or 4 with LCM and TCD.
        guidance_scale: how far to follow the prompt; up to 1 there is no guidance, and half the work. 7.5; 5
            for SDXL; 8.5 where the scale is told to the denoiser (LCM), which then has no negative prompt.
            Turbo models want 0.
        guidance_method: how the predictions with the prompt and with the negative one are joined: ``cfg``,
            classifier-free; ``apg``, adaptive projected guidance, which burns colours out less; ``cfg_zero``;
            ``perp_neg``, which takes nothing away that both prompts have, for half as much work again.
        guidance_rescale: how much of the spread of a guided prediction is brought back to that without
            guidance, 0 to 1; 0.7 where a model has a terminal signal to noise ratio of zero.
        guidance_start, guidance_end: between which shares of the steps there is guidance, 0 and 1. Outside, a
            step takes half of the work.
        scheduler: a name that sd_schedulers knows; by default the one that the bundle names.
        spacing: how to spread the steps over the noise, a name in ``sd_schedulers.SPACINGS``; by default as
            the bundle's scheduler config has it.
        timesteps: where to evaluate instead, of the training timesteps, falling; their number is that of the
            steps.
        sigmas: where to stop instead, as noise levels, falling, one more than there are steps: the last is
            where to end, usually 0.
        eta: how much of the noise to add anew at each step, from 0 to 1, with schedulers that have it.
        mu: the shift of the noise levels to a resolution, of flow-matching models (``flow_mu``).
        recipe: a name in :data:`~sd_runtime.RECIPES`, which says what is not said here, or ``none``; by
            default what the bundle asks for.
        task: the name of one of the pipeline's tasks; by default what the pictures below ask for.
        image: a PIL image or a file to start from, to repaint or to change; stretched to the model's size if
            it has another.
        mask: what is white in it is painted anew.
        strength: how much of the schedule runs on an image, 0.8 (refiners 0.3); of inpainting, 1: from noise
            alone.
        image_guidance_scale: how far InstructPix2Pix follows the image, 1.5.
        original_size, crop_top_left, target_size: what SDXL is told of the picture, each (height, width), by
            default the model's size and (0, 0).
        aesthetic_score, negative_aesthetic_score: what the refiner is told, 6 and 2.5.
        refiner: the pipeline that takes over at ``refiner_start``, 0.8 of the time.
        steer: what is asked at every step for more inputs of the denoiser, such as a ControlNet's residuals;
            the settings of the picture know what it says in its attribute ``controls``, if it has one.
        prompt_syntax: how both prompts are read: ``plain``, word for word, as diffusers does, or ``a1111``,
            with the web UI's weights, escapes and ``BREAK``.
        variation_seed, variation_strength: another seed, and how far to turn the noise to start from towards
            its own, above 0 and up to 1, as the web UI does. Of several pictures this seed counts up.
        outpaint: how many pixels to paint around the image: left, top, right and bottom. What is there
            already is kept as a mask keeps it.
        hires_scale: draw the picture, upscale it so many times, 1.5 or 2, and draw over it (the web UI's
            hires fix). The pipeline has to have that size, too: in its bundle, or by ``hires_bundle``.
        hires_strength: how much of the schedule the second pass runs, 0.7.
        hires_steps: how many steps it takes, as many as the first.
        hires_upscaler: ``latent``, between the elements of the latent, or ``lanczos``, between the pixels:
            then the larger size needs an image encoder.
        clip_skip, embeddings: what the pipeline has to have been opened with; None takes it as it is.
        mask_blur: how soft the edge of the mask is: the deviation of a Gaussian, in pixels of the mask, 0 to
            1024. The image is put back around what was painted, and fades into it there. None puts nothing
            back: what is kept is then as the VAE has it, as in diffusers.
        mask_content: what the masked part starts from: ``original``, the image; ``fill``, the colours around
            it; ``latent_noise``, more noise; ``latent_nothing``, a latent of zeros. The nearer ``strength``
            is to 1, the less it matters.
        padding_mask_crop: draw the masked part alone, with so many pixels around it, at the model's size, and
            put it back into the image, which keeps its own size (the web UI's "only masked").

    Raises:
        SettingsError: a value makes no sense, whatever the model.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 93
    rng: Rng = "numpy"
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_method: str | None = None
    guidance_rescale: float | None = None
    guidance_start: float | None = None
    guidance_end: float | None = None
    scheduler: str | None = None
    spacing: str | None = None
    timesteps: Sequence[int] | None = None
    sigmas: Sequence[float] | None = None
    eta: float | None = None
    mu: float | None = None
    recipe: str | None = None
    task: str | None = None
    image: Image | str | Path | None = None
    mask: Image | str | Path | None = None
    strength: float | None = None
    image_guidance_scale: float | None = None
    original_size: Size | None = None
    crop_top_left: Size | None = None
    target_size: Size | None = None
    aesthetic_score: float | None = None
    negative_aesthetic_score: float | None = None
    refiner: Pipeline | None = None
    refiner_start: float | None = None
    steer: Steer | None = None
    prompt_syntax: str = "plain"
    variation_seed: int | None = None
    variation_strength: float | None = None
    outpaint: Margins | None = None
    hires_scale: float | None = None
    hires_strength: float | None = None
    hires_steps: int | None = None
    hires_upscaler: str | None = None
    clip_skip: int | None = None
    embeddings: Sequence[EmbeddingSettings] | None = None
    mask_blur: float | None = None
    mask_content: str | None = None
    padding_mask_crop: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense with any model."""
        draw_noise((1,), self.seed, self.rng)  # refuses an unknown generator or seed
        for name in ("num_inference_steps", "hires_steps"):
            _check_steps(name, getattr(self, name))
        for name in _FINITE:
            _check_finite(name, getattr(self, name))
        for name in _SHARES:
            _check_share(name, getattr(self, name))
        if self.prompt_syntax not in SYNTAXES:
            expected = ", ".join(SYNTAXES)
            raise SettingsError(f"expected a prompt_syntax of {expected}, got {self.prompt_syntax!r}")
        _check_guidance(self)
        _check_variation(self)
        _check_outpaint(self)
        _check_hires(self)
        _check_mask(self)
        for name in SIZES:
            _check_size(name, getattr(self, name))
        for name, kind in (("timesteps", int), ("sigmas", float)):
            object.__setattr__(self, name, _listed(name, getattr(self, name), kind))
        if self.refiner_start == 1:
            raise SettingsError("expected refiner_start below 1, got 1: leave the refiner out")


def request_of(prompt: str | Request, options: SamplingOptions) -> Request:
    """The request for ``prompt``, or the given one with ``options`` in place of its own.

    Raises:
        TypeError: no option of that name.
        SettingsError: a value makes no sense.
    """
    known = SamplingOptions.__annotations__
    for name in options:
        if name not in known:
            raise TypeError(f"expected an option of {', '.join(known)}; got {name!r}")
    return Request(prompt, **options) if isinstance(prompt, str) else replace(prompt, **options)


def _check_guidance(request: Request) -> None:
    if request.guidance_method is not None and request.guidance_method not in GUIDANCE:
        expected = ", ".join(GUIDANCE)
        raise SettingsError(f"expected a guidance_method of {expected}, got {request.guidance_method!r}")
    for name in ("guidance_rescale", "guidance_start", "guidance_end"):
        value = getattr(request, name)
        _check_finite(name, value)
        if value is not None and not 0 <= value <= 1:
            raise SettingsError(f"expected {name} from 0 to 1, got {value!r}")
    start = 0.0 if request.guidance_start is None else request.guidance_start
    end = 1.0 if request.guidance_end is None else request.guidance_end
    if start >= end:
        raise SettingsError(f"expected guidance_start below guidance_end, got {start!r} and {end!r}")


def _check_variation(request: Request) -> None:
    if (request.variation_seed is None) != (request.variation_strength is None):
        raise SettingsError(
            "expected variation_seed and variation_strength together, got "
            f"{request.variation_seed!r} and {request.variation_strength!r}"
        )
    if request.variation_seed is not None:
        draw_noise((1,), request.variation_seed, request.rng)


def _check_outpaint(request: Request) -> None:
    match request.outpaint:
        case None:
            return
        case (int(), int(), int(), int()) as margins if 0 < sum(margins) <= 2**15 and min(margins) >= 0:
            if request.mask is not None:
                raise SettingsError("expected outpaint or a mask, got both: outpaint makes its own")
            if request.image is None:
                raise SettingsError("expected an image for outpaint, got none")
            return
    raise SettingsError(
        "expected outpaint to be four whole numbers of pixels, left, top, right and bottom, some above 0 and "
        f"{2**15} together at most, got {request.outpaint!r}"
    )


def _check_hires(request: Request) -> None:
    scale, upscaler = request.hires_scale, request.hires_upscaler
    _check_finite("hires_scale", scale)
    if scale is not None and not 1 < scale <= LARGEST_SCALE:
        raise SettingsError(f"expected hires_scale above 1 and up to {LARGEST_SCALE:g}, got {scale!r}")
    if upscaler is not None and upscaler not in UPSCALERS:
        raise SettingsError(f"expected a hires_upscaler of {', '.join(UPSCALERS)}, got {upscaler!r}")
    given = [name for name in HIRES if name != "hires_scale" and getattr(request, name) is not None]
    if scale is None and given:
        raise SettingsError(f"expected hires_scale for {given[0]}, got none")
    beside = [name for name in _NOT_IN_TWO_PASSES if getattr(request, name) is not None]
    if scale is not None and beside:
        of = f" of the recipe {request.recipe}" if request.recipe not in (None, "none") else ""
        raise SettingsError(
            f"expected hires_scale without {beside[0]}{of}, which is for one pass, got both: leave one out"
        )


def _check_mask(request: Request) -> None:
    blur, content, padding = request.mask_blur, request.mask_content, request.padding_mask_crop
    _check_finite("mask_blur", blur)
    if blur is not None and not 0 <= blur <= LARGEST_BLUR:
        raise SettingsError(f"expected a mask_blur from 0 to {LARGEST_BLUR}, got {blur!r}")
    if content is not None and content not in MASK_CONTENTS:
        raise SettingsError(f"expected a mask_content of {', '.join(MASK_CONTENTS)}, got {content!r}")
    if padding is not None and (isinstance(padding, bool) or padding not in range(2**15)):
        raise SettingsError(f"expected a padding_mask_crop from 0 to {2**15 - 1} pixels, got {padding!r}")


def _check_steps(name: str, steps: int | None) -> None:
    if steps is not None and steps < 1:
        raise SettingsError(f"expected {name} of at least 1, got {steps!r}")


def _check_finite(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
        raise SettingsError(f"expected a finite {name}, got {value!r}")


def _listed(name: str, values: Sequence[Any] | None, kind: type[int] | type[float]) -> tuple[Any, ...] | None:
    """``values`` as they cannot be changed any more."""
    if values is None:
        return None
    wanted = "whole numbers" if kind is int else "finite numbers"
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | kind) or not math.isfinite(value):
            raise SettingsError(f"expected {name} to be {wanted}, got {value!r} among them")
    if len(values) < (1 if kind is int else 2):
        raise SettingsError(f"expected {name} for at least one step, got {list(values)!r}")
    return tuple(kind(value) for value in values)


def _check_share(name: str, value: float | None) -> None:
    _check_finite(name, value)
    if value is not None and not 0 < value <= 1:
        raise SettingsError(f"expected {name} above 0 and up to 1, got {value!r}")


def _check_size(name: str, size: object) -> None:
    least = 0 if name == "crop_top_left" else 1
    match size:
        case None:
            return
        case (int(height), int(width)) if least <= min(height, width) and max(height, width) <= 2**15:
            return
    raise SettingsError(f"expected {name} to be two whole numbers from {least} to {2**15}, got {size!r}")
