"""Images that steer through IP-Adapters: from a picture to the tokens that the UNet attends to.

Legend: n rows of an evaluation, D channels of the text, T image tokens, P channels of an embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_runtime import (
    IMAGE_SCALE,
    IMAGE_TOKENS,
    BundleComponent,
    ControlSettings,
    Evaluation,
    Pipeline,
    PortSpec,
    clip_input,
)

from sd_controlnet.conditioning import in_bytes, read_hint
from sd_controlnet.control import steers
from sd_controlnet.errors import BaseModelError, ControlNetError
from sd_controlnet.image_prompt import ImagePrompt
from sd_controlnet.naming import described, named

Float: TypeAlias = npt.NDArray[np.float32]

ROLE: Final = "image_projection"
_EMBEDDING: Final = "image_embeds"
_OPTION: Final = "--ip-adapter"


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """What the UNet is given of one image: tokens (2, D, 1, T), of no image and of this one."""

    prompt: ImagePrompt
    component: BundleComponent
    tokens: Float
    settings: ControlSettings

    @property
    def port(self) -> str:
        """The input of the UNet that takes the tokens."""
        return self.component.outputs[0].name

    @property
    def number(self) -> int:
        """Which of the UNet's adapters it is."""
        return int(self.port.removeprefix(IMAGE_TOKENS))


def image_tokens(
    pipeline: Pipeline, prompts: Sequence[ImagePrompt], unet: Mapping[str, PortSpec]
) -> tuple[ImageTokens, ...]:
    """The tokens of each image; the image encoder runs, and goes again where memory is to be saved.

    Raises:
        ControlNetError: no such adapter, two images for one, or a UNet that takes no images.
        BaseModelError: an adapter for another UNet.
        sd_runtime.MissingComponentError: the bundle has no image encoder.
        sd_runtime.UserImageError: an image that cannot be read.
    """
    chosen = _chosen(pipeline, prompts)
    for component in chosen:
        _check_fit(component, unet, pipeline)
    models = pipeline.models
    encoder = pipeline.bundle.only("vision_encoder") if chosen else None
    try:
        return tuple(
            _tokens(prompt, component, pipeline) for prompt, component in zip(prompts, chosen, strict=True)
        )
    finally:
        if models.reduce_memory and encoder is not None:
            for component in (encoder, *chosen):
                models.forget(component)


def image_inputs(images: Sequence[ImageTokens], evaluation: Evaluation, count: int) -> dict[str, Float]:
    """The UNet's inputs for the images that take part, (n, ...); nothing where none does.

    ``count``: of the UNet's adapters. Rows that guidance moves away from see no image.
    """
    active = [
        image
        for image in images
        if image.prompt.scale
        and steers(image.prompt.start, image.prompt.end, evaluation.index, evaluation.total)
    ]
    if not active:
        return {}
    rows = np.array([0 if negative else 1 for negative in evaluation.is_negative])
    scales = np.zeros((len(rows), count), np.float32)
    for image in active:
        scales[:, image.number] = image.prompt.scale
    return {IMAGE_SCALE: scales, **{image.port: image.tokens[rows] for image in active}}


def _chosen(pipeline: Pipeline, prompts: Sequence[ImagePrompt]) -> list[BundleComponent]:
    """The adapter of each image."""
    have = sorted(pipeline.bundle.components(ROLE), key=lambda component: component.outputs[0].name)
    if prompts and not have:
        source = pipeline.bundle.manifest.provenance.source
        raise ControlNetError(
            f"expected a bundle with IP-Adapters, got none in {pipeline.bundle.path}: make one with "
            f"`sdc convert {source} {_OPTION} FILE --image-encoder FOLDER ...`"
        )
    if len(prompts) > len(have):
        known = ", ".join(component.name for component in have)
        raise ControlNetError(
            f"expected an image for each IP-Adapter of {pipeline.bundle.path} ({known}), got {len(prompts)}"
        )
    chosen = [
        own if prompt.adapter is None else named(prompt.adapter, pipeline, (ROLE,), _OPTION)
        for prompt, own in zip(prompts, have, strict=False)
    ]
    names = [component.name for component in chosen]
    if len(set(names)) != len(names):
        raise ControlNetError(f"expected one image for each IP-Adapter, got several for {', '.join(names)}")
    return chosen


def _check_fit(component: BundleComponent, unet: Mapping[str, PortSpec], pipeline: Pipeline) -> None:
    (given,) = component.outputs
    due = unet[given.name].shape[1:] if given.name in unet else None
    if due != given.shape[1:]:
        raise BaseModelError(
            f"expected {component.name} to give {given.name} of shape "
            f"{described(due)}, as the UNet of {pipeline.bundle.path} takes it, got "
            f"{described(given.shape[1:])}: convert them together, with {_OPTION}"
        )


def _tokens(prompt: ImagePrompt, component: BundleComponent, pipeline: Pipeline) -> ImageTokens:
    """As diffusers' ``encode_image``: no image is an embedding of zeros, or what is seen of all zeros."""
    models = pipeline.models
    encoder = models.only("vision_encoder")
    image = prompt.image if not isinstance(prompt.image, str | Path) else read_hint(prompt.image)
    pixels = clip_input(in_bytes(image), encoder.input("pixel_values").shape[-1])
    port = component.inputs[0].name
    seen = encoder.predict(port, pixel_values=pixels)
    if port == _EMBEDDING:
        unseen = np.zeros_like(seen)
    else:
        unseen = encoder.predict(port, pixel_values=np.zeros_like(pixels))
    projection, output = models.of(component), component.outputs[0].name
    tokens = np.concatenate([projection.predict(output, **{port: each}) for each in (unseen, seen)])
    settings = ControlSettings(
        component=component.name,
        hint_sha256=hashlib.sha256(pixels.tobytes()).hexdigest(),
        scale=float(prompt.scale),
        start=float(prompt.start),
        end=float(prompt.end),
        guess_mode=False,
        mask_sha256=None,
    )
    return ImageTokens(prompt, component, tokens, settings)
