"""The sizes of the networks' ports that are chosen, not given: by options, or by a bundle that is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Final

from sd_bundle import ImageSize, ModelFacts, Variant

from sd_convert.errors import IncompleteCheckpointError, OptionsError

from .read import Facts

if TYPE_CHECKING:
    from sd_convert.conversion.options import ConversionOptions

#: What the names of a ControlNet's residuals begin with; a number follows.
RESIDUAL: Final = "additional_residual_"

#: What the names of a T2I-Adapter's residuals begin with, as with Guernika's converter; two digits follow.
ADAPTER_RESIDUAL: Final = "adapter_res_samples_"

#: What the names of the image tokens that an IP-Adapter gives begin with; its number follows. And the name of
#: the scales, one for each row and adapter.
IMAGE_TOKENS: Final = "ip_hidden_states_"
IMAGE_SCALE: Final = "ip_adapter_scale"

#: Classifier-free guidance runs the UNet on the negative and the positive prompt at once.
_BATCH: Final = 2
_TOKENS: Final = 77  # CLIP's, where there is no text encoder to ask


@dataclass(frozen=True, slots=True)
class Sizes:
    """``height``, ``width``: of the latents; ``batch``: samples of the UNet; ``tokens`` that it attends to.

    ``has_residuals``: whether the UNet takes those of a ControlNet; ``has_adapter_residuals``: those of a
    T2I-Adapter.
    """

    height: int
    width: int
    batch: int
    tokens: int
    has_residuals: bool
    has_adapter_residuals: bool = False


def chosen_sizes(facts: Facts, options: ConversionOptions) -> Sizes:
    """The first of :func:`every_size`, with its errors."""
    return every_size(facts, options)[0]


def every_size(facts: Facts, options: ConversionOptions) -> tuple[Sizes, ...]:
    """The options' sizes, else the UNet's ``sample_size`` and as many tokens as a text encoder takes at once.

    Of each, all combinations of the options' forms, what the other options say first.

    Raises:
        IncompleteCheckpointError: nothing says how large latents are.
        OptionsError: more tokens than a text encoder takes, and not a whole number of times as many; or a
            picture that is not a whole number of latent pixels; or forms of fewer tokens than that.
    """
    return tuple(one for size in _picture_sizes(facts, options) for one in _forms(facts, options, size))


def _forms(facts: Facts, options: ConversionOptions, first: Sizes) -> Iterator[Sizes]:
    """The combinations of what is asked for; text encoders, which serve all, take one window."""
    window = facts.text_encoders[-1].tokens if facts.text_encoders else _TOKENS
    more = tuple(checked_tokens(facts, count) for count in options.form_tokens)
    for count in (first.tokens, *more) if more else ():
        if count < window:
            raise OptionsError(f"unet_forms: expected a multiple of {window} tokens each, got {count}")
    axes = product(
        dict.fromkeys((first.tokens, *more)),
        (False, True) if "controlnet" in options.unet_forms else (first.has_residuals,),
        (first.batch, 1) if "batch-one" in options.unet_forms else (first.batch,),
    )
    for tokens, has_residuals, batch in axes:
        yield replace(first, tokens=tokens, has_residuals=has_residuals, batch=batch)


def _picture_sizes(facts: Facts, options: ConversionOptions) -> tuple[Sizes, ...]:
    if options.sizes:
        return tuple(_sized(facts, options, *_latent(facts, image)) for image in options.sizes)
    height, width = facts.unet.sample_size or (None, None)
    height, width = options.latent_height or height, options.latent_width or width
    if height is None or width is None:
        raise IncompleteCheckpointError(
            f"{facts.name}/unet/config.json: sample_size: expected a size in latent pixels, got none; "
            "give latent_height and latent_width"
        )
    return (_sized(facts, options, height, width),)


def _latent(facts: Facts, image: ImageSize) -> tuple[int, int]:
    factor = facts.vae.factor
    if image.height % factor or image.width % factor:
        raise OptionsError(f"sizes: expected multiples of {factor} pixels, got {image}")
    return image.height // factor, image.width // factor


def _sized(facts: Facts, options: ConversionOptions, height: int, width: int) -> Sizes:
    return Sizes(
        height=height,
        width=width,
        batch=1 if options.unet_batch_one else _BATCH,
        tokens=checked_tokens(facts, options.text_token_sequence_length),
        has_residuals=options.unet_support_controlnet,
        has_adapter_residuals=options.unet_support_t2i_adapter,
    )


def stated_sizes(facts: Facts, model: ModelFacts, variant: Variant) -> Sizes:
    """The sizes that a bundle's manifest states for one of its networks.

    Raises:
        OptionsError: more tokens than a text encoder takes, and not a whole number of times as many.
    """
    latent = next(size.latent for size in model.sizes if variant.size in (None, size.image))
    shapes = {port.name: port.shape for port in variant.inputs}
    attended, ids = shapes.get("encoder_hidden_states", ()), shapes.get("input_ids", ())
    return Sizes(
        height=latent.height,
        width=latent.width,
        batch=(*shapes.get("sample", ()), _BATCH)[0],
        tokens=checked_tokens(facts, (*attended[3:], *ids[1:], None)[0]),
        has_residuals=any(name.startswith(RESIDUAL) for name in shapes),
        has_adapter_residuals=any(name.startswith(ADAPTER_RESIDUAL) for name in shapes),
    )


def checked_tokens(facts: Facts, asked: int | None) -> int:
    """``asked``, or as many as the last text encoder takes at once.

    Raises:
        OptionsError: more than it takes, and not a whole number of times as many.
    """
    most = facts.text_encoders[-1].tokens if facts.text_encoders else _TOKENS
    asked = asked or most
    if asked > most and asked % most:
        raise OptionsError(
            f"text_token_sequence_length: expected at most {most}, or a multiple of it, got {asked}"
        )
    return asked
