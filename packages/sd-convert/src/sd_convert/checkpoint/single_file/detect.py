"""What a file is: the networks in it, their family, and what the UNet predicts; or why it is refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from sd_bundle import PredictionType

from sd_convert.checkpoint.tensors import TensorEntry
from sd_convert.checkpoint.weights import MappedWeights
from sd_convert.errors import NotACheckpointError, OptionsError, UnsupportedArchitectureError
from sd_convert.families import FAMILIES, Family, Prediction, family_of

PREDICTION_TYPES: Final = ("epsilon", "v_prediction", "sample")

_UNET: Final = "model.diffusion_model."
_UNET_MARK: Final = "input_blocks.0.0.weight"


@dataclass(frozen=True, slots=True)
class Place:
    """Tensors of one network: all names that start with ``prefix``, in a ``layout``."""

    folder: str
    prefix: str
    layout: str


_PLACES: Final = (
    Place("unet", _UNET, "unet"),
    Place("vae", "first_stage_model.", "vae"),
    Place("vae", "vae.", "vae"),
    *(
        Place(encoder.folder, encoder.place, encoder.layout)
        for family in FAMILIES.values()
        for encoder in family.encoders
    ),
)

Mark: TypeAlias = tuple[str, str, str]

#: What is told by a name even where there is a UNet: the pattern, what the file is, and what to do with it.
_OTHER_UNETS: Final[tuple[Mark, ...]] = (
    (r".*\bmotion_modules\.", "an AnimateDiff UNet", ""),
    (r"(model\.diffusion_model\.)?label_emb\.weight$", "the 4x upscaler", ""),
    (r"edm_(mean|std)$", "Playground v2.5, whose latents are normalised otherwise", ""),
)

#: The same where there is none; checkpoints may well have a LoRA's or a ControlNet's leftovers beside it.
_OTHERS: Final[tuple[Mark, ...]] = (
    (
        r".*(lora_(up|down|A|B|mid)\b|\.hada_w|\.lokr_w|lora\.(up|down)\.|oft_diag)",
        "a LoRA",
        "give it as --lora beside a checkpoint",
    ),
    (r"(emb_params|clip_[lg]|<.*>)$", "a textual-inversion embedding", "give it as --embedding name=FILE"),
    (
        r"(control_model\.|input_hint_block\.|controlnet_)",
        "a ControlNet",
        "it is no checkpoint by itself",
    ),
    (r".*\bjoint_blocks\.", "Stable Diffusion 3", ""),
    (r".*\b(double_blocks|single_transformer_blocks)\.", "Flux", ""),
    (r".*\b(clip_txt_pooled_mapper|clip_txt_mapper|effnet_mapper)\.", "Stable Cascade", ""),
    (
        r"(unet\.)?(down_blocks|up_blocks)\.\d+\.resnets",
        "a UNet in diffusers' layout",
        "put it in a checkpoint folder",
    ),
    (r".*\b(transformer_blocks|blocks|layers)\.\d+\.adaLN", "a diffusion transformer", ""),
)
_VAE: Final = re.compile(r"(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|mid|layers)")


def find_networks(
    entries: Mapping[str, TensorEntry], *, variant: str | None, where: str
) -> tuple[Place, ...]:
    """The networks of a Stable Diffusion checkpoint that the file has, the UNet first.

    ``variant``: ``"ema"`` takes the averaged weights of the UNet (``model_ema.``), which full checkpoints of
    training have beside the others; None or ``""`` takes the others.

    Raises:
        NotACheckpointError: the file is something else: a LoRA, a ControlNet, a VAE, ...
        UnsupportedArchitectureError: it is a checkpoint of a kind that is not converted.
        OptionsError: no such variant.
    """
    found = [place for place in _PLACES if any(name.startswith(place.prefix) for name in entries)]
    if not any(place.folder == "unet" for place in found) and _UNET_MARK in entries:
        found.insert(0, Place("unet", "", "unet"))
    is_unet = any(place.folder == "unet" and f"{place.prefix}{_UNET_MARK}" in entries for place in found)
    _refuse(entries, _OTHER_UNETS if is_unet else (*_OTHER_UNETS, *_OTHERS), where)
    if not is_unet:
        raise _no_unet(entries, where)
    if variant not in (None, "", "ema"):
        raise OptionsError(f"{where}: variant: expected 'ema' or none for a single file, got {variant!r}")
    if variant == "ema":
        _check_averaged(entries, where)
        found = [Place("unet", _UNET, "unet_ema"), *(p for p in found if p.folder != "unet")]
    return tuple({place.folder: place for place in reversed(found)}.values())[::-1]


def _refuse(names: Collection[str], others: tuple[Mark, ...], where: str) -> None:
    for pattern, kind, advice in others:
        marks = [name for name in names if re.match(pattern, name)]
        if not marks:
            continue
        if advice:
            raise NotACheckpointError(f"{where}: expected a checkpoint, got {kind} ({marks[0]}): {advice}")
        raise UnsupportedArchitectureError(
            f"{where}: expected Stable Diffusion 1, 2 or XL, got {kind} ({marks[0]}), which is not converted"
        )


def _no_unet(names: Collection[str], where: str) -> Exception:
    if any(_VAE.match(name) for name in names):
        return NotACheckpointError(
            f"{where}: expected a checkpoint, got a VAE alone: give it as --custom-vae-version "
            "beside a checkpoint"
        )
    some = ", ".join(sorted(names)[:3]) or "no tensors"
    return NotACheckpointError(
        f"{where}: expected a checkpoint with {_UNET}{_UNET_MARK} (the original layout of Stable Diffusion "
        f"1, 2 and XL), got {some}"
    )


def averaged_name(name: str) -> str:
    """Where the moving average of a weight of the UNet is kept: ``model_ema.`` and the name without dots."""
    return "model_ema." + name.removeprefix("model.").replace(".", "")


def _check_averaged(names: Collection[str], where: str) -> None:
    missing = [n for n in names if n.startswith(_UNET) and averaged_name(n) not in names]
    if missing:
        raise OptionsError(
            f"{where}: variant 'ema': expected averaged weights for the UNet, got none for {missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; leave the variant out"
        )


def find_family(places: Collection[Place], unet: Mapping[str, object], *, where: str) -> Family:
    """The family, from the text encoders' places and the UNet's config.

    Raises:
        UnsupportedArchitectureError: SD 2.1 unCLIP, which is conditioned on pictures.
    """
    prefixes = {place.prefix for place in places}
    if "addition_embed_type" not in unet:
        return family_of(time_ids="none", linear_projection=bool(unet["use_linear_projection"]))
    if FAMILIES["sd2"].encoders[0].place in prefixes:
        raise UnsupportedArchitectureError(
            f"{where}: expected Stable Diffusion 1, 2 or XL, got SD 2.1 unCLIP, which is not converted"
        )
    sized = [family for family in FAMILIES.values() if family.takes_sizes]
    encoding = [family for family in sized if any(e.place in prefixes for e in family.encoders)]
    fitting = [family for family in sized if _fits_sizes(family, unet)]
    return (*encoding, *fitting, *sized)[0]


def _fits_sizes(family: Family, unet: Mapping[str, object]) -> bool:
    """Whether the embedding of sizes has room for the family's pooled text and numbers, and no more."""
    width, each = unet["projection_class_embeddings_input_dim"], unet["addition_time_embed_dim"]
    return isinstance(each, int) and width == family.encoders[-1].width + family.time_id_count * each


def find_prediction(weights: MappedWeights, family: Family, *, channels: int) -> Prediction:
    """The prediction type, from what the file has for it, in this order.

    1. The marker tensors ``v_pred`` and ``ztsnr``, as trainers of SDXL with v-prediction leave them.
    2. The metadata ``modelspec.prediction_type`` and ``modelspec.architecture``.
    3. What the family predicts, by the number of training steps, ``global_step``.

    Weights themselves do not tell: A1111 runs the UNet once on a constant, others look at the spread of a
    normalisation's bias, and both misjudge fine-tuned models.
    """
    if "v_pred" in weights:
        found = Prediction("v_prediction")
    elif (said := _said(weights.metadata)) is not None:
        found = Prediction(said)
    else:
        found = family.unsaid_prediction(_number(weights, "global_step"), channels)
    return replace(found, zero_terminal_snr="ztsnr" in weights)


def _said(metadata: Mapping[str, str]) -> PredictionType | None:
    """Source: https://github.com/Stability-AI/ModelSpec, and what kohya's trainers write."""
    value = metadata.get("modelspec.prediction_type", "").lower()
    if value in ("v", "v_prediction", "v-prediction"):
        return "v_prediction"
    if value in ("epsilon", "eps"):
        return "epsilon"
    architecture = metadata.get("modelspec.architecture", "")
    return "v_prediction" if architecture.startswith("stable-diffusion-v2-768-v") else None


def _number(weights: MappedWeights, name: str) -> int | None:
    """A tensor of one whole number, of whatever integer dtype."""
    entry = weights.entries.get(name)
    if entry is None or entry.bytes > 8 or entry.dtype not in ("I64", "I32", "U64", "U32"):
        return None
    return int.from_bytes(entry.data[entry.start : entry.stop].tobytes(), "little", signed=True)


def find_resolution(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Width and height in pixels, as the metadata's ``modelspec.resolution`` (``768x512``) says."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", metadata.get("modelspec.resolution", ""), re.ASCII)
    return (int(match[1]), int(match[2] or match[1])) if match else None
