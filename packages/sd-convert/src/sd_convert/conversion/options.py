"""What a conversion may be told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sd_bundle import ImageSize

from sd_convert.errors import OptionsError
from sd_convert.targets import TARGETS, has_fused_attention, target_named

#: The compute unit for which each attention implementation was designed; AUTO suits any, this one by default.
COMPUTE_UNIT_OF_ATTENTION: Final = {
    "ORIGINAL": "CPU_AND_GPU",
    "SPLIT_EINSUM": "CPU_AND_NE",
    "SPLIT_EINSUM_V2": "CPU_AND_NE",
    "SDPA": "CPU_AND_GPU",
    "AUTO": "CPU_AND_NE",
}
ATTENTION_IMPLEMENTATIONS: Final = tuple(COMPUTE_UNIT_OF_ATTENTION)
COMPUTE_UNITS: Final = ("ALL", "CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE")
#: Forms of the UNet that may be asked for beside the first; ``tokens=N`` is one, too.
UNET_FORMS: Final = ("controlnet", "batch-one")
PRECISIONS: Final = ("auto", "fp16", "fp32")

_SIZES: Final = {
    "latent_height": "latent pixels",
    "latent_width": "latent pixels",
    "text_token_sequence_length": "tokens",
}


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """How to convert a checkpoint; every default is the one that apps expect.

    ``components``: by name; ``None`` is every one that the checkpoint was opened with.
    ``attention_implementation``: ``AUTO`` is what sd-attention recommends for each attention's sizes on the
    compute unit; ``SDPA`` needs the operations of iOS18.
    ``compute_unit``: ``None`` is the one that the attention implementation was designed for.
    ``latent_height``, ``latent_width``: in latent pixels; ``None`` is the UNet's ``sample_size``.
    ``sizes``: those of the pictures, in pixels, in place of one latent size; the networks of all share their
    weights, and the first is drawn where none is asked for.
    ``text_token_sequence_length``: tokens that the UNet attends to; ``None`` is what a text encoder takes at
    once. More than that is a multiple: windows of a long prompt, which the text encoder takes one by one.
    ``unet_support_controlnet``: whether the UNet has inputs for the residuals of a ControlNet.
    ``unet_support_t2i_adapter``: whether it has inputs for those of a T2I-Adapter.
    ``unet_batch_one``: whether the UNet takes one sample, to be called twice for guidance, instead of two.
    ``unet_forms``: in what other forms the UNet is made as well, in all combinations, sharing its weights:
    ``controlnet`` (with and without inputs for residuals), ``batch-one``, ``tokens=154``. ControlNets, whose
    ports follow from these, are made in as many.
    ``target``: the minimum deployment target, by coremltools' name (``macOS13``, ``iOS16``, ...).
    ``compute_precision``: ``auto`` (found by a check), ``fp16`` or ``fp32`` for all components, or for one as
    ``vae_decoder=fp32``; later entries win. By default the VAE's halves are checked, the others are fp16.
    ``model_version``: the name that files and metadata carry; ``None`` is the checkpoint's own.
    ``recipe``: how a model for few steps wants to be sampled, by a name that whoever draws knows; None leaves
    it open.
    ``overwrite``: whether a bundle that exists may be replaced.

    Raises:
        OptionsError: an unknown name, a size that is not positive, or SDPA for a system without it.
    """

    components: tuple[str, ...] | None = None
    attention_implementation: str = "SPLIT_EINSUM"
    compute_unit: str | None = None
    latent_height: int | None = None
    latent_width: int | None = None
    sizes: tuple[ImageSize, ...] = ()
    text_token_sequence_length: int | None = None
    unet_support_controlnet: bool = False
    unet_support_t2i_adapter: bool = False
    unet_batch_one: bool = False
    unet_forms: tuple[str, ...] = ()
    target: str = "macOS13"
    compute_precision: tuple[str, ...] = ()
    model_version: str | None = None
    recipe: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no conversion can honour."""
        if self.components is not None:
            _check_distinct(self.components)
        one_of("attention_implementation", self.attention_implementation, ATTENTION_IMPLEMENTATIONS)
        one_of("target", self.target, tuple(TARGETS))
        check_attention(self.attention_implementation, self.target)
        if self.compute_unit is not None:
            one_of("compute_unit", self.compute_unit, COMPUTE_UNITS)
        for entry in self.compute_precision:
            _check_precision(entry)
        self._check_sizes()
        self._check_forms()
        for name, unit in _SIZES.items():
            size = getattr(self, name)
            if size is not None and size < 1:
                raise OptionsError(f"{name}: expected a positive number of {unit}, got {size}")

    def _check_sizes(self) -> None:
        said = ", ".join(map(str, self.sizes))
        if len(set(self.sizes)) != len(self.sizes):
            raise OptionsError(f"sizes: expected each size once, got {said}")
        if self.sizes and (self.latent_height or self.latent_width):
            raise OptionsError(f"sizes: expected them without a latent size, got {said} and one")

    def _check_forms(self) -> None:
        for entry in self.unet_forms:
            count = entry.removeprefix("tokens=")
            if entry not in UNET_FORMS and (count == entry or not re.fullmatch("[1-9][0-9]{0,5}", count)):
                expected = ", ".join((*UNET_FORMS, "tokens=N"))
                raise OptionsError(f"unet_forms: expected {expected}, got {entry!r}")
        if len(set(self.unet_forms)) != len(self.unet_forms):
            raise OptionsError(f"unet_forms: expected each once, got {', '.join(self.unet_forms)}")
        said = {"controlnet": self.unet_support_controlnet, "batch-one": self.unet_batch_one}
        for entry, is_said in said.items():
            if is_said and entry in self.unet_forms:
                raise OptionsError(
                    f"unet_forms: expected {entry} as an option, for all, or as a form, got both"
                )

    @property
    def takes_residuals(self) -> bool:
        """Whether the UNet, in some form, has inputs for a ControlNet's residuals."""
        return self.unet_support_controlnet or "controlnet" in self.unet_forms

    @property
    def form_tokens(self) -> tuple[int, ...]:
        """How many tokens the UNet attends to in other forms."""
        counts = (entry.removeprefix("tokens=") for entry in self.unet_forms if entry.startswith("tokens="))
        return tuple(map(int, counts))

    @property
    def resolved_compute_unit(self) -> str:
        """The compute unit asked for, or the one that the attention implementation was designed for."""
        return self.compute_unit or COMPUTE_UNIT_OF_ATTENTION[self.attention_implementation]


def check_attention(implementation: str, target: str) -> None:
    """Refuse fused attention with :class:`OptionsError` where a target has no operation for it."""
    if implementation == "SDPA" and not has_fused_attention(target_named(target)):
        able = [name for name, known in TARGETS.items() if has_fused_attention(known)]
        raise OptionsError(
            f"attention_implementation: SDPA needs a target out of {', '.join(able)}, got {target}: "
            "raise the minimum deployment target, or choose another implementation"
        )


def _check_precision(entry: str) -> None:
    if entry.rpartition("=")[2] not in PRECISIONS or entry.startswith("="):
        raise OptionsError(
            f"compute_precision: expected {', '.join(PRECISIONS)}, or one of them for a component "
            f"(vae_decoder=fp32), got {entry!r}"
        )


def check_components(names: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Refuse unknown, repeated or no component names with :class:`OptionsError`."""
    _check_distinct(names)
    for name in names:
        one_of("components", name, known)


def _check_distinct(names: tuple[str, ...]) -> None:
    if not names:
        raise OptionsError("components: expected at least one, got none")
    if len(set(names)) != len(names):
        raise OptionsError(f"components: expected each name once, got {', '.join(names)}")


def one_of(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a ``value`` of ``option`` that is none of ``choices`` with :class:`OptionsError`."""
    if value not in choices:
        raise OptionsError(f"{option}: expected one of {', '.join(choices)}, got {value!r}")
