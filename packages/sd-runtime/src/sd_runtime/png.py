"""A picture that remembers how it was made: settings as texts inside a PNG, JPEG or WebP.

Two texts: ``parameters`` in the form that Stable Diffusion web UIs read, and ``sdc``, JSON with every
setting.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sd_bundle import ManifestError, decode, encode, parse_json
from sd_schedulers import SCHEDULERS, sampler_name

from sd_runtime.errors import ImageTextError
from sd_runtime.masking import MASK_CONTENTS, ONLY_MASKED
from sd_runtime.picture_texts import PictureTexts, png_with_texts, read_texts, save_with_texts
from sd_runtime.settings import ControlSettings, ImageSettings, SafetyReport
from sd_runtime.tasks.hires import UPSCALERS

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A picture, the settings that made it, and what the safety checker said, or why it said nothing."""

    image: Image
    settings: ImageSettings
    safety: SafetyReport = SafetyReport("off")  # noqa: RUF009 # frozen

    @property
    def flagged(self) -> bool:
        """Whether the safety checker found one of its concepts."""
        return self.safety.status == "flagged"

    def save(self, path: str | Path) -> None:
        """Write a PNG, JPEG or WebP, by suffix, with the settings inside; replaces a file of that name.

        It is written whole or not at all. Errors as :func:`~sd_runtime.picture_texts.save_with_texts`.
        """
        save_with_texts(self.image, Path(path), self._texts())

    def png(self) -> bytes:
        """The content of the PNG that :meth:`save` writes."""
        return png_with_texts(self.image, self._texts())

    def _texts(self) -> PictureTexts:
        return PictureTexts(webui_text(self.settings), json.dumps(encode(self.settings)))


def webui_text(settings: ImageSettings) -> str:
    """``settings`` as AUTOMATIC1111's web UI writes them: prompt, negative prompt, then one line of pairs."""
    pairs = {
        "Steps": settings.num_inference_steps,
        "Sampler": sampler_name(settings.scheduler) or settings.scheduler,
        "Schedule type": settings.schedule_type,
        "CFG scale": settings.guidance_scale,
        "Image CFG scale": settings.image_guidance_scale,
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model": settings.model,
        "Denoising strength": settings.strength if settings.hires_scale is None else settings.hires_strength,
        "Hires upscale": settings.hires_scale,
        "Hires steps": settings.hires_steps,
        "Hires upscaler": settings.hires_upscaler and UPSCALERS[settings.hires_upscaler],
        _ETA.get(settings.scheduler, "Eta"): _own_eta(settings),
        "Refiner": settings.refiner,
        "Refiner switch at": settings.refiner_start,
        "Variation seed": settings.variation_seed,
        "Variation seed strength": settings.variation_strength,
        "Mask blur": _short(settings.mask_blur),
        "Inpaint area": None if settings.padding_mask_crop is None else ONLY_MASKED,
        "Masked area padding": settings.padding_mask_crop,
        "Masked content": settings.mask_content and MASK_CONTENTS[settings.mask_content],
        "Clip skip": settings.clip_skip,
        "TI hashes": ", ".join(f"{each.name}: {each.sha256[:12]}" for each in settings.embeddings or ())
        or None,
        "RNG": _WEBUI_RNG.get(settings.rng),
        **{f"ControlNet {number}": _control(each) for number, each in enumerate(settings.controls or ())},
    }
    lines = [settings.prompt]
    if settings.negative_prompt:
        lines.append(f"Negative prompt: {settings.negative_prompt}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in pairs.items() if value is not None))
    return "\n".join(lines)


def _control(control: ControlSettings) -> str:
    """As the web UI's ControlNet extension writes them (``internal_controlnet/args.py``)."""
    mode = "ControlNet is more important" if control.guess_mode else "Balanced"
    return (
        f"Model: {control.component}, Weight: {control.scale:g}, Guidance Start: {control.start:g}, "
        f"Guidance End: {control.end:g}, Control Mode: {mode}"
    )


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


#: It has two, for the samplers in timesteps and for those of k-diffusion.
_ETA = {"ddim": "Eta DDIM"}


def _own_eta(settings: ImageSettings) -> float | None:
    """Where it is not the scheduler's own."""
    known = SCHEDULERS.get(settings.scheduler)
    return None if known is not None and settings.eta == known.eta else settings.eta


#: It has no numpy generator; torch's on the processor it calls CPU.
_WEBUI_RNG = {"torch": "CPU", "torch_cuda": "NV"}


def _quoted(value: object) -> str:
    """As the web UI's ``quote`` (modules/infotext_utils.py): JSON where a pair would end too soon."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text


def read_settings(path: str | Path) -> ImageSettings:
    """The settings in a picture that :meth:`GeneratedImage.save` wrote, also before there were some of them.

    Raises:
        ImageTextError: no PNG, JPEG or WebP, no settings in it, or settings that are not whole.
    """
    stored = read_texts(path).sdc
    if stored is None:
        raise ImageTextError(
            f"{path}: expected a text chunk 'sdc', got none: other software wrote this picture"
        )
    return parse_settings(stored, path)


def parse_settings(text: str, path: str | Path) -> ImageSettings:
    """The settings that ``text`` of the picture at ``path`` states; errors as :func:`read_settings`."""
    try:
        found = parse_json(text)
        return decode(ImageSettings, _completed(found) if isinstance(found, dict) else found)
    except ManifestError as error:
        raise ImageTextError(
            f"{path}: expected {error.expected} at {error.where} of its text, got {error.got!r}"
        ) from None


def _completed(found: dict[str, Any]) -> dict[str, Any]:
    """With what a picture has that was drawn before a setting was."""
    complete = {**_later(ImageSettings), **found}
    if isinstance(controls := complete.get("controls"), list):
        later = _later(ControlSettings)
        complete["controls"] = [{**later, **each} if isinstance(each, dict) else each for each in controls]
    return complete


def _later(kind: type[ImageSettings | ControlSettings]) -> dict[str, None]:
    return {field.name: None for field in dataclasses.fields(kind) if field.default is None}
