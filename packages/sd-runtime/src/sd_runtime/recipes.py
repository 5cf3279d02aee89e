"""How models that were distilled to draw in a few steps want to be sampled: one entry each, with its source.

A recipe is part of a request. What the caller says himself comes first; then the recipe; then the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from sd_bundle import Bundle
from sd_schedulers import resolve

from sd_runtime.errors import SettingsError
from sd_runtime.request import Request

#: The name that stands for no recipe, whatever the bundle says.
NO_RECIPE: Final = "none"

_WEIGHTS: Final = ".safetensors"
#: Fields of a request that mean one thing in several ways: who states one of them has chosen.
_SPREAD: Final = frozenset(("spacing", "timesteps", "sigmas"))
#: What is left of a recipe with another scheduler than its own.
_WITH_ANY_SCHEDULER: Final = frozenset(("num_inference_steps", "guidance_scale"))


@dataclass(frozen=True, slots=True)
class Recipe:
    """The ``fields`` of a request that a model wants, and the ``source`` that says so.

    ``published`` are the models (by their identifier) and LoRAs (by repository or file name) that it is for.
    """

    name: str
    fields: Mapping[str, Any]
    source: str
    published: tuple[str, ...] = field(default=())


def _hyper_sd(steps: int) -> Recipe:
    """Of two steps or more; each number has weights of its own."""
    return Recipe(
        f"hyper-sd-{steps}",
        {"scheduler": "ddim", "spacing": "trailing", "num_inference_steps": steps, "guidance_scale": 0.0},
        "arXiv 2404.13686; huggingface.co/ByteDance/Hyper-SD, usage of the 2, 4 and 8 step LoRAs",
        tuple(f"Hyper-{base}-{steps}steps-lora.safetensors" for base in ("SD15", "SDXL")),
    )


def _lightning(steps: int) -> Recipe:
    return Recipe(
        f"lightning-{steps}",
        {"scheduler": "euler", "spacing": "trailing", "num_inference_steps": steps, "guidance_scale": 0.0},
        "arXiv 2402.13929; huggingface.co/ByteDance/SDXL-Lightning, usage with diffusers",
        (f"sdxl_lightning_{steps}step_lora.safetensors", f"sdxl_lightning_{steps}step.safetensors"),
    )


_ALL: Final = (
    Recipe(
        "lcm",  # its guidance scale is told to the denoiser: that of the model
        {"scheduler": "lcm", "num_inference_steps": 4},
        "arXiv 2310.04378; huggingface.co/SimianLuo/LCM_Dreamshaper_v7",
        ("SimianLuo/LCM_Dreamshaper_v7",),
    ),
    Recipe(
        "lcm-lora",
        {"scheduler": "lcm", "num_inference_steps": 4, "guidance_scale": 1.0},
        "arXiv 2311.05556; huggingface.co/latent-consistency/lcm-lora-sdv1-5",
        tuple(f"latent-consistency/lcm-lora-{base}" for base in ("sdv1-5", "sdxl", "ssd-1b")),
    ),
    Recipe(
        "sd-turbo",
        {"scheduler": "euler", "spacing": "trailing", "num_inference_steps": 1, "guidance_scale": 0.0},
        "arXiv 2311.17042; huggingface.co/stabilityai/sd-turbo and its scheduler_config.json",
        ("stabilityai/sd-turbo",),
    ),
    Recipe(
        "sdxl-turbo",
        {
            "scheduler": "euler_ancestral",
            "spacing": "trailing",
            "num_inference_steps": 1,
            "guidance_scale": 0.0,
        },
        "arXiv 2311.17042; huggingface.co/stabilityai/sdxl-turbo and its scheduler_config.json",
        ("stabilityai/sdxl-turbo",),
    ),
    Recipe(
        "tcd",
        {"scheduler": "tcd", "num_inference_steps": 4, "guidance_scale": 0.0, "eta": 0.3},
        "arXiv 2402.19159; huggingface.co/h1t/TCD-SDXL-LoRA, text-to-image",
        ("h1t/TCD-SDXL-LoRA", "h1t/TCD-SD15-LoRA", "h1t/TCD-SD21-base-LoRA"),
    ),
    Recipe(
        "hyper-sd-1",
        {"scheduler": "tcd", "num_inference_steps": 1, "guidance_scale": 0.0, "eta": 1.0},
        "arXiv 2404.13686; huggingface.co/ByteDance/Hyper-SD, usage of the 1 step LoRAs",
        ("Hyper-SD15-1step-lora.safetensors", "Hyper-SDXL-1step-lora.safetensors"),
    ),
    *map(_hyper_sd, (2, 4, 8)),
    *map(_lightning, (2, 4, 8)),
    Recipe(
        "dmd2-1",
        {"scheduler": "lcm", "timesteps": (399,), "num_inference_steps": 1, "guidance_scale": 0.0},
        "arXiv 2405.14867; huggingface.co/tianweiy/DMD2, 1-step UNet generation",
        ("dmd2_sdxl_1step_unet_fp16.bin",),
    ),
    Recipe(
        "dmd2-4",
        {
            "scheduler": "lcm",
            "timesteps": (999, 749, 499, 249),
            "num_inference_steps": 4,
            "guidance_scale": 0.0,
        },
        "arXiv 2405.14867; huggingface.co/tianweiy/DMD2, 4-step UNet and LoRA generation",
        ("dmd2_sdxl_4step_lora.safetensors", "dmd2_sdxl_4step_lora_fp16.safetensors"),
    ),
)

#: By their names.
RECIPES: Final[Mapping[str, Recipe]] = MappingProxyType({recipe.name: recipe for recipe in _ALL})


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        SettingsError: there is none; the choices are listed.
    """
    if name not in RECIPES:
        raise SettingsError(f"expected a recipe of {', '.join(RECIPES)}, or {NO_RECIPE}; got {name!r}")
    return RECIPES[name]


def recipe_published(names: Iterable[str]) -> Recipe | None:
    """The recipe of a model or a LoRA with one of these names: a hub id, a file on the hub, a file's name."""
    known = tuple(names)
    return next((recipe for recipe in _ALL if any(_is_of(name, recipe) for name in known)), None)


def recipe_for(bundle: Bundle) -> Recipe | None:
    """The recipe that a bundle states, or that its identifier, a LoRA in it or its scheduler asks for.

    Raises:
        SettingsError: the name of none.
    """
    stated = bundle.manifest.model.recipe
    if stated is not None:
        if stated not in (*RECIPES, NO_RECIPE):
            raise SettingsError(
                f"expected {bundle.path} to ask for a recipe of {', '.join(RECIPES)}, got {stated!r}: "
                f"update, or choose one, or {NO_RECIPE}"
            )
        return RECIPES.get(stated)
    if (published := recipe_published([bundle.manifest.model.identifier, *_merged(bundle)])) is not None:
        return published
    model, written_for = bundle.manifest.model, bundle.noise_config().get("_class_name")
    if model.denoiser.distillation == "lcm" or written_for == "LCMScheduler":
        return RECIPES["lcm" if model.conditioning.guidance_embedding else "lcm-lora"]
    return RECIPES["tcd"] if written_for == "TCDScheduler" else None


def _merged(bundle: Bundle) -> list[str]:
    weights = bundle.manifest.provenance.weights
    return [] if weights is None else [lora.file.name for lora in weights.loras if lora.scale != 0]


def _is_of(name: str, recipe: Recipe) -> bool:
    """By the whole name, or by the repository or the file name of ``org/model/file``.

    Repositories whose files are called alike are the names of files that were downloaded from them.
    """
    parts = name.lower().split("/")
    names = {name.lower(), parts[-1], "/".join(parts[:2])}
    if parts[-1].endswith(_WEIGHTS):
        names.add(parts[-1].removesuffix(_WEIGHTS).replace("_", "-"))
    known = {published.lower() for published in recipe.published}
    return bool(names & (known | {one.partition("/")[2] for one in known if "/" in one}))


def prepared(request: Request, bundle: Bundle) -> Request:
    """``request`` with what its recipe, or that of the bundle, says where it says nothing itself.

    A scheduler that the request chooses leaves only number of steps and guidance of a recipe for another; a
    number of steps, none of the timesteps that the bundle's recipe lists for another number.

    Raises:
        SettingsError: no such recipe, or a number of steps that the one named has no timesteps for.
    """
    if request.recipe == NO_RECIPE:
        return request
    recipe = recipe_for(bundle) if request.recipe is None else recipe_named(request.recipe)
    if recipe is None:
        return request
    fields = {name: value for name, value in recipe.fields.items() if getattr(request, name) is None}
    if request.scheduler is not None and resolve(request.scheduler) != recipe.fields["scheduler"]:
        fields = {name: value for name, value in fields.items() if name in _WITH_ANY_SCHEDULER}
    if any(getattr(request, name) is not None for name in _SPREAD):
        fields = {name: value for name, value in fields.items() if name not in _SPREAD}
    steps, listed = request.num_inference_steps, fields.get("timesteps")
    if listed is not None and steps not in (None, len(listed)):
        if request.recipe is not None:
            raise SettingsError(
                f"expected num_inference_steps {len(listed)} for the recipe {recipe.name}, got {steps}: "
                "state timesteps too, or leave the recipe out"
            )
        del fields["timesteps"]
    return replace(request, recipe=recipe.name, **_without_steps(request, fields))


def _without_steps(request: Request, fields: dict[str, Any]) -> dict[str, Any]:
    """Who states timesteps or sigmas has stated how many."""
    if request.timesteps is None and request.sigmas is None:
        return fields
    return {name: value for name, value in fields.items() if name != "num_inference_steps"}
