"""What apps call the networks of a bundle.

Source: apple/ml-stable-diffusion: ``bundle_resources_for_swift_cli`` in torch2coreml.py writes the names,
``StableDiffusionPipeline+Resources.swift`` and ``StableDiffusionXLPipeline+Resources.swift`` read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sd_bundle import Bundle, BundleComponent

SUFFIX: Final = ".mlmodelc"
#: The inputs by which a UNet takes what ControlNets add.
RESIDUAL: Final = "additional_residual_"
#: Those by which it sees the images of IP-Adapters.
IMAGE_TOKENS: Final = "ip_hidden_states_"
#: What the Swift package loads of a network in pieces: ``UnetChunk1`` and ``UnetChunk2``.
_MOST_CHUNKS: Final = 2

_NAMES: Final = {
    "text_encoder": "TextEncoder",
    "text_encoder_2": "TextEncoder2",
    "vae_decoder": "VAEDecoder",
    "vae_encoder": "VAEEncoder",
    "safety_checker": "SafetyChecker",
}


class ResourcesError(ValueError):
    """A bundle, or a model, that apps could not read as what it is."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A package of a bundle, and the name of its compiled model without the suffix."""

    name: str
    bundle: Bundle
    package: str


def resources(bundle: Bundle) -> tuple[Resource, ...]:
    """The networks of a whole model, of one picture size.

    Raises:
        ResourcesError: a network that no app looks for, or that none loads in so many pieces, or one that is
            missing.
    """
    found = tuple(one for part in bundle.manifest.components for one in _named(bundle, part))
    names = {one.name for one in found}
    needed = {
        "a text encoder": {"TextEncoder", "TextEncoder2"},
        "a UNet": {"Unet", "UnetChunk1", "ControlledUnet", "ControlledUnetChunk1"},
        "a VAE decoder": {"VAEDecoder"},
    }
    for what, any_of in needed.items():
        if not names & any_of:
            raise ResourcesError(
                f"expected {what} in {bundle.path}, as every app does, got {', '.join(sorted(names))}: "
                "convert the checkpoint with that component"
            )
    return found


def refiner(bundle: Bundle) -> tuple[Resource, ...]:
    """The UNet of SDXL's refiner, which lies beside the base model's networks.

    Raises:
        ResourcesError: it is no refiner.
    """
    if bundle.manifest.model.family != "sdxl-refiner":
        raise ResourcesError(
            f"expected SDXL's refiner in {bundle.path}, got the family {bundle.manifest.model.family}"
        )
    return tuple(_in_pieces(bundle, bundle.only("denoiser"), "UnetRefiner"))


def controlled_unet(bundle: Bundle) -> tuple[Resource, ...]:
    """The UNet of a bundle that was converted for ControlNets.

    Raises:
        ResourcesError: it takes nothing from them.
    """
    unet = bundle.only("denoiser")
    if not takes_residuals(unet):
        raise ResourcesError(
            f"expected a UNet for ControlNets in {bundle.path}, got one without the inputs {RESIDUAL}0, …: "
            "convert it with --unet-support-controlnet"
        )
    return tuple(_in_pieces(bundle, unet, "ControlledUnet"))


def takes_residuals(unet: BundleComponent) -> bool:
    """Whether ControlNets can be used with it."""
    return any(port.name.startswith(RESIDUAL) for port in unet.inputs)


def controlnet_name(package: Path) -> str:
    """``LllyasvielSdControlnetCanny`` of ``ControlNet_lllyasviel_sd-controlnet-canny.mlpackage``.

    Raises:
        ResourcesError: nothing is left of the name.
    """
    stem = package.name.removesuffix(package.suffix).removeprefix("ControlNet_")
    name = "".join(word.title() for word in re.split(r"[_\-]", stem))
    if not name or name.startswith("."):
        raise ResourcesError(f"expected a file name to call a ControlNet by, got {package.name!r}")
    return name


def _named(bundle: Bundle, component: BundleComponent) -> Iterator[Resource]:
    if component.role == "denoiser":
        _check_image_inputs(bundle, component)
        name = "ControlledUnet" if takes_residuals(component) else "Unet"
        yield from _in_pieces(bundle, component, name)
        return
    if component.role == "preview_decoder":
        return  # no app shows pictures by one
    if component.name not in _NAMES:
        raise ResourcesError(
            f"expected components that apps know ({', '.join(_NAMES)}, unet), got {component.name!r}"
        )
    yield _whole(bundle, component, _NAMES[component.name])


def _check_image_inputs(bundle: Bundle, unet: BundleComponent) -> None:
    if any(port.name.startswith(IMAGE_TOKENS) for port in unet.inputs):
        raise ResourcesError(
            f"expected a UNet whose inputs apps know, got one with IP-Adapters ({IMAGE_TOKENS}0, …) in "
            f"{bundle.path}: convert it without --ip-adapter"
        )


def _whole(bundle: Bundle, component: BundleComponent, name: str) -> Resource:
    (only,) = _checked(component, 1)
    return Resource(name, bundle, only)


def _in_pieces(bundle: Bundle, component: BundleComponent, name: str) -> Iterator[Resource]:
    packages = _checked(component, _MOST_CHUNKS)
    if len(packages) == 1:
        yield Resource(name, bundle, packages[0])
        return
    for number, package in enumerate(packages, 1):
        yield Resource(f"{name}Chunk{number}", bundle, package)


def _checked(component: BundleComponent, most: int) -> tuple[str, ...]:
    chunks = component.variant.chunks
    if len(chunks) > most:
        pieces = "one piece" if most == 1 else f"at most {most} pieces"
        raise ResourcesError(
            f"expected {component.name} in {pieces}, as the Swift package loads it, got {len(chunks)}"
        )
    for chunk in chunks:
        if chunk.function is not None:
            raise ResourcesError(
                f"expected {component.name} in a package of one function, as apps load it, got the function "
                f"{chunk.function!r} of {chunk.package}: convert with one --size for each folder, "
                "and without --unet-form"
            )
    return tuple(chunk.package for chunk in chunks)
