"""The settings of a picture, ours or a web UI's, as options for another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from sd_bundle import ImageSize
from sd_schedulers import sampler_named

from sd_runtime.errors import ImageTextError, SettingsError
from sd_runtime.infotext import Infotext, parse_infotext
from sd_runtime.masking import MASK_CONTENTS, ONLY_MASKED
from sd_runtime.noise import SEEDS
from sd_runtime.picture_texts import read_texts
from sd_runtime.png import parse_settings
from sd_runtime.recipes import NO_RECIPE
from sd_runtime.settings import ImageSettings
from sd_runtime.tasks.hires import UPSCALERS

#: Of the options of a request, those that settings have under the same name.
_SAME: Final = (
    "prompt",
    "negative_prompt",
    "prompt_syntax",
    "seed",
    "variation_seed",
    "variation_strength",
    "outpaint",
    "rng",
    "scheduler",
    "num_inference_steps",
    "guidance_scale",
    "guidance_method",
    "guidance_rescale",
    "guidance_start",
    "guidance_end",
    "spacing",
    "timesteps",
    "sigmas",
    "eta",
    "mu",
    "strength",
    "image_guidance_scale",
    "original_size",
    "crop_top_left",
    "target_size",
    "aesthetic_score",
    "negative_aesthetic_score",
    "refiner_start",
    "hires_scale",
    "hires_strength",
    "hires_steps",
    "hires_upscaler",
    "clip_skip",
    "embeddings",
    "mask_blur",
    "mask_content",
    "padding_mask_crop",
)
#: What settings know of, and a request has to be given.
_GIVEN: Final = {"image_sha256": "image", "mask_sha256": "mask", "refiner": "refiner", "controls": "steer"}
#: Options that mean one thing in several ways: who states one has chosen.
_WAYS: Final = (
    frozenset(("spacing", "timesteps", "sigmas")),
    frozenset(("num_inference_steps", "timesteps", "sigmas")),
)


@dataclass(frozen=True, slots=True)
class Reused:
    """What a picture says of how it was made.

    ``options`` are fields of a request, as the picture has them. ``size`` is its size, ``model`` the name of
    its model. ``needs`` are the fields that it had and does not hold: pictures, a refiner, what steered.
    ``unsupported`` has what cannot be asked for here, as the picture states it, by the option in whose place
    it stands (or its own name, if there is none).
    """

    options: Mapping[str, Any]
    size: ImageSize | None
    model: str | None
    needs: tuple[str, ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)

    def with_options(self, stated: Mapping[str, Any]) -> dict[str, Any]:
        """Options for a request: those of the picture, and ``stated`` ones in their place.

        Raises:
            SettingsError: something of the picture can neither be honoured nor is stated otherwise.
        """
        for name, text in self.unsupported.items():
            if name not in stated:
                raise SettingsError(
                    f"expected settings that can be honoured here, got {text} in the picture: state {name} "
                    "yourself, where there is such an option"
                )
        for name in self.needs:
            if name not in stated:
                raise SettingsError(
                    f"expected {name} beside the settings of a picture that was made with one"
                )
        replaced = {*stated, *(each for way in _WAYS for each in way if way & stated.keys())}
        if stated.keys() & {"image", "mask"}:
            replaced.add("task")  # the pictures say which
        return {**{name: value for name, value in self.options.items() if name not in replaced}, **stated}


def reused(picture: str | Path | BinaryIO) -> Reused:
    """The settings in a PNG, JPEG or WebP: every one if it is ours, or those that a web UI wrote.

    Raises:
        ImageTextError: no such picture, or one without settings.
    """
    texts = read_texts(picture)
    name = picture if isinstance(picture, str | Path) else "the picture"
    if texts.sdc is not None:
        return of_settings(parse_settings(texts.sdc, name))
    found = None if texts.parameters is None else parse_infotext(texts.parameters)
    if found is None or not found.pairs:
        raise ImageTextError(f"{name}: expected settings, ours or as web UIs write them, got none")
    return of_webui(found)


def of_settings(settings: ImageSettings) -> Reused:
    """All of our own."""
    options = {name: getattr(settings, name) for name in _SAME}
    known = {name: value for name, value in options.items() if value is not None}
    return Reused(
        {**known, "recipe": settings.recipe or NO_RECIPE, "task": settings.mode},
        ImageSize(width=settings.width, height=settings.height),
        settings.model,
        tuple(
            option
            for name, option in _GIVEN.items()
            if getattr(settings, name) and not (option == "mask" and settings.outpaint)
        ),
    )


def of_webui(text: Infotext) -> Reused:
    """Those of a web UI's that mean the same here."""
    options: dict[str, Any] = {
        "prompt": text.prompt,
        "negative_prompt": text.negative_prompt,
        "prompt_syntax": "a1111",
        "recipe": NO_RECIPE,
    }
    unsupported: dict[str, str] = {}
    for name, value in text.pairs.items():
        option, read = _PAIRS.get(name, (name, None))
        try:
            if read is None:
                raise ValueError
            options |= read(value)
        except ValueError:  # of ours, too
            unsupported[option] = f"{name}: {value}"
    if "hires_scale" in options and "strength" in options:  # it has one name for both
        options["hires_strength"] = options.pop("strength")
    unsupported |= _sampler(text.pairs, options)
    if "rng" not in options and "rng" not in unsupported:  # what is not said there is drawn on a GPU
        unsupported |= _rng_of("GPU", options)
    if networks := _networks(text.prompt):
        unsupported["prompt"] = networks[0]
    size = options.pop("size", None)
    needs = [name for name, has in (("image", "strength" in options), ("mask", _has_mask(text.pairs))) if has]
    return Reused(options, size, text.pairs.get("Model"), tuple(needs), unsupported)


def _networks(prompt: str) -> list[str]:
    """``<lora:…>`` and its like, which are asked for in the prompt there."""
    return [part.partition(">")[0] + ">" for part in map("<{}".format, prompt.split("<")[1:]) if ":" in part]


def _has_mask(pairs: Mapping[str, str]) -> bool:
    return any(name.startswith(("Mask", "Inpaint area")) for name in pairs)


def _number(option: str, kind: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    return lambda value: {option: kind(value)}


def _nothing(_: str) -> dict[str, Any]:
    return {}


def _size(value: str) -> dict[str, Any]:
    width, _, height = value.partition("x")
    return {"size": ImageSize(width=int(width), height=int(height))}


def _upscaler(value: str) -> dict[str, Any]:
    """Those of the web UI that are here, too."""
    for own, theirs in UPSCALERS.items():
        if theirs == value:
            return {"hires_upscaler": own}
    raise ValueError


def _content(value: str) -> dict[str, Any]:
    for own, theirs in MASK_CONTENTS.items():
        if theirs == value:
            return {"mask_content": own}
    raise ValueError


def _area(value: str) -> dict[str, Any]:
    """The whole picture is what is drawn without; the padding follows."""
    if value not in (ONLY_MASKED, "Whole picture"):
        raise ValueError
    return {}


#: The web UI's names for generators; the card's noise does not depend on the card.
RNGS: Final[Mapping[str, str]] = {"CPU": "torch", "GPU": "torch_cuda", "NV": "torch_cuda"}


def _rng_of(value: str, options: dict[str, Any]) -> dict[str, str]:
    """Set ``rng``, or what cannot be had."""
    if RNGS.get(value) in SEEDS:
        options["rng"] = RNGS[value]
        return {}
    return {"rng": f"RNG: {value}"}


def _rng(value: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if _rng_of(value, options):
        raise ValueError
    return options


def _sampler(pairs: Mapping[str, str], options: dict[str, Any]) -> dict[str, str]:
    if "Sampler" not in pairs:
        return {}
    try:
        scheduler, spacing = sampler_named(pairs["Sampler"], pairs.get("Schedule type"))
    except ValueError:
        return {"scheduler": f"Sampler: {pairs['Sampler']}, Schedule type: {pairs.get('Schedule type')}"}
    options["scheduler"] = scheduler
    if spacing is not None:
        options["spacing"] = spacing
    return {}


#: By the name of a pair: the option that it stands for, and what reads it.
_PAIRS: Final[Mapping[str, tuple[str, Callable[[str], dict[str, Any]]]]] = {
    "Steps": ("num_inference_steps", _number("num_inference_steps", int)),
    "CFG scale": ("guidance_scale", _number("guidance_scale", float)),
    "Image CFG scale": ("image_guidance_scale", _number("image_guidance_scale", float)),
    "Seed": ("seed", _number("seed", int)),
    "Size": ("size", _size),
    "Denoising strength": ("strength", _number("strength", float)),
    "Eta": ("eta", _number("eta", float)),
    "Eta DDIM": ("eta", _number("eta", float)),
    "RNG": ("rng", _rng),
    "Variation seed": ("variation_seed", _number("variation_seed", int)),
    "Variation seed strength": ("variation_strength", _number("variation_strength", float)),
    "Hires upscale": ("hires_scale", _number("hires_scale", float)),
    "Hires steps": ("hires_steps", _number("hires_steps", int)),
    "Hires upscaler": ("hires_upscaler", _upscaler),
    "Clip skip": ("clip_skip", _number("clip_skip", int)),
    **{name: (name, _nothing) for name in ("Sampler", "Schedule type", "Model", "Model hash", "Version")},
    "Mask blur": ("mask_blur", _number("mask_blur", float)),
    "Masked content": ("mask_content", _content),
    "Inpaint area": ("padding_mask_crop", _area),
    "Masked area padding": ("padding_mask_crop", _number("padding_mask_crop", int)),
    **{name: (name, _nothing) for name in ("VAE", "VAE hash", "Mask mode")},
}
