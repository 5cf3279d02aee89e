"""ControlNets and adapters that steer a denoiser: what :class:`sd_runtime.Request` calls ``steer``."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sd_runtime import IMAGE_SCALE, BundleComponent, ControlSettings, Evaluation, Pipeline, PortSpec, Role

from sd_controlnet.conditioning import hint_array, mask_array, shrunk
from sd_controlnet.control import Control
from sd_controlnet.errors import BaseModelError, ControlNetError
from sd_controlnet.image_prompt import ImagePrompt
from sd_controlnet.image_prompts import image_inputs, image_tokens
from sd_controlnet.naming import described, named
from sd_controlnet.steerers import KIND_OF_HINT, STEERERS, Residuals, Steerer, hint_count, is_pooled

Float: TypeAlias = npt.NDArray[np.float32]


class Steering:
    """Networks that steer together: what they add is summed, once. Images go through IP-Adapters beside them.

    ``controls`` is what the settings of a picture say of them, ``takes`` the roles of what runs, by which a
    pipeline chooses among the forms of its UNet. Several pictures may be drawn with one.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        controls: Sequence[Control] = (),
        images: Sequence[ImagePrompt] = (),
    ) -> None:
        """Read and fit the hints; ControlNets and T2I-Adapters load when they are first needed.

        Of ``images`` the tokens are computed here, so that an image encoder may go before the UNet loads.

        Raises:
            ControlNetError: nothing steers, or a UNet that does not take it: with the option that makes one.
            BaseModelError: a network for another UNet than the bundle's.
            HintError, sd_runtime.UserImageError: a hint, mask or image that cannot be used.
        """
        if not controls and not images:
            raise ControlNetError("expected at least one ControlNet, adapter or image, got none")
        self.takes = _roles(controls, images, pipeline)
        self._unet = {port.name: port for port in _denoiser(pipeline, self.takes).inputs}
        prepared = [_prepared(control, pipeline, self._unet) for control in controls]
        self._steerers = _joined([steerer for steerer, _ in prepared])
        self._images = image_tokens(pipeline, images, self._unet)
        self.controls = (*(settings for _, settings in prepared), *(each.settings for each in self._images))

    def __call__(self, evaluation: Evaluation) -> Residuals:
        """The sum of what all add at this evaluation, (n, C, h, w) each; nothing where none takes part.

        And, of images that do, their tokens (n, D, 1, T) and the scales (n, adapters).
        """
        count = self._unet[IMAGE_SCALE].shape[-1] if self._images else 0
        return {**self._residuals(evaluation), **image_inputs(self._images, evaluation, count)}

    def _residuals(self, evaluation: Evaluation) -> Residuals:
        added: dict[str, Float] = {}
        for steerer in self._steerers:
            control = steerer.control
            strength = max(each.scale for each in (control, *(other for other, _ in steerer.beside)))
            if strength and control.steers(evaluation.index, evaluation.total):
                for name, values in steerer.residuals(evaluation).items():
                    added[name] = added[name] + values if name in added else values
            if control.is_over(evaluation.index, evaluation.total):
                steerer.forget()
        # means over the whole picture are added everywhere
        return {
            name: np.broadcast_to(values, (len(values), *self._unet[name].shape[1:]))
            for name, values in added.items()
        }


def _roles(
    controls: Sequence[Control], images: Sequence[ImagePrompt], pipeline: Pipeline
) -> tuple[Role, ...]:
    named_ones = (
        named(control.component, pipeline, STEERERS, "--convert-controlnet").role for control in controls
    )
    return tuple(dict.fromkeys((*named_ones, *(("image_projection",) if images else ()))))


def _denoiser(pipeline: Pipeline, takes: Collection[Role]) -> BundleComponent:
    """The UNet in a form that takes all of these, or in the first, to be told what it lacks."""
    for form in pipeline.forms:
        if set(takes) <= set(form.takes):
            models, _ = pipeline.in_form(form)
            return models.bundle.only("denoiser")
    return pipeline.bundle.only("denoiser")


def _prepared(
    control: Control, pipeline: Pipeline, unet: Mapping[str, PortSpec]
) -> tuple[Steerer, ControlSettings]:
    component = named(control.component, pipeline, STEERERS, "--convert-controlnet")
    kind, models, image = STEERERS[component.role], pipeline.models, pipeline.bundle.manifest.model.image
    _check_fit(component, kind, unet, pipeline)
    _check_mode(control, component)
    port = next(port for port in component.inputs if port.name == kind.hint_port)
    _, channels, height, width = port.shape
    hint = hint_array(control.hint, height=height, width=width, channels=channels)
    mask = None if control.mask is None else mask_array(control.mask, height=image.height, width=image.width)
    sizes = set() if mask is None else {output.shape[2:] for output in component.outputs}
    steerer = kind(
        control=control,
        component=component,
        load=lambda tokens: models.of(_for_tokens(component, pipeline, tokens)),
        forget=lambda: models.forget(component) if models.reduce_memory else None,
        hint=hint,
        masks={} if mask is None else {size: shrunk(mask, *size) for size in sizes},
    )
    settings = ControlSettings(
        component=component.name,
        hint_sha256=_sha256(hint),
        scale=float(control.scale),
        start=float(control.start),
        end=float(control.end),
        guess_mode=control.guess_mode,
        mask_sha256=None if mask is None else _sha256(mask),
        mode=control.mode,
    )
    return steerer, settings


def _joined(steerers: Sequence[Steerer]) -> tuple[Steerer, ...]:
    """The hints of a union ControlNet that was made for several at once in one use of it."""
    joined: dict[str, Steerer] = {}
    for number, steerer in enumerate(steerers):
        most = hint_count({port.name: port for port in steerer.component.inputs})
        if most == 1:
            joined[str(number)] = steerer
            continue
        key = f"of {steerer.component.name}"
        if key not in joined:
            joined[key] = steerer
            continue
        first = joined[key]
        _check_alike(first.control, steerer.control)
        beside = (*first.beside, (steerer.control, steerer.hint))
        if len(beside) >= most:
            raise ControlNetError(
                f"expected up to {most} hints for {steerer.component.name}, got more: convert it with "
                f"--union-hints {len(beside) + 1}"
            )
        joined[key] = replace(first, beside=beside)
    return tuple(joined.values())


def _check_alike(first: Control, other: Control) -> None:
    for name in ("start", "end", "guess_mode", "mask"):
        due, got = getattr(first, name), getattr(other, name)
        if due != got:
            raise ControlNetError(
                f"expected hints that {first.component} is given at once to have the same {name}, got {due} "
                f"and {got}"
            )


def _for_tokens(component: BundleComponent, pipeline: Pipeline, tokens: int | None) -> BundleComponent:
    """The network in the form that sees as many tokens as the UNet; itself where it has but one."""
    for form in pipeline.forms:
        if form.tokens == tokens:
            models, _ = pipeline.in_form(form)
            return models.bundle.component(component.name)
    return component


def _check_mode(control: Control, component: BundleComponent) -> None:
    """Hold the kind of hint against those that a union ControlNet knows; others know none."""
    known = next((port.shape[1] for port in component.inputs if port.name == KIND_OF_HINT), None)
    if known is None and control.mode is not None:
        raise ControlNetError(
            f"expected a mode for a union ControlNet alone, got {control.mode!r} for "
            f"{component.name}, which is none"
        )
    if known is not None and (type(control.mode) is not int or not 0 <= control.mode < known):
        raise ControlNetError(
            f"expected a mode from 0 to {known - 1} for the union ControlNet {component.name}, got "
            f"{control.mode!r}"
        )


def _sha256(array: Float) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _check_fit(
    component: BundleComponent, kind: type[Steerer], unet: Mapping[str, PortSpec], pipeline: Pipeline
) -> None:
    """Hold what a network returns against what the UNet takes."""
    taken = {name: port.shape[1:] for name, port in unet.items() if name.startswith(kind.beginning)}
    given = {port.name: port.shape[1:] for port in component.outputs}
    if not taken:
        source = pipeline.bundle.manifest.provenance.source
        raise ControlNetError(
            f"expected a UNet that takes the residuals of {component.name}, got one without such inputs in "
            f"{pipeline.bundle.path}: make one with `sdc convert {source} {kind.option} ...`"
        )
    compared = slice(0, 1) if is_pooled(component.outputs) else slice(None)
    for name in sorted({*taken, *given}, key=lambda name: (len(name), name)):
        due, got = taken.get(name), given.get(name)
        if due is None or got is None or due[compared] != got[compared]:
            raise BaseModelError(
                f"expected {component.name} to give {name} of shape {described(due)}, as the UNet of "
                f"{pipeline.bundle.path} takes it, got {described(got)}: it was made for another model"
            )
