"""What the networks of another tool mean together: read off their ports, or told by whoever opens them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from sd_bundle import (
    BundleError,
    ConditioningFacts,
    DenoiserFacts,
    Family,
    ImageSize,
    LatentSize,
    ModelFacts,
    PictureSize,
    PredictionType,
    Task,
    TextEncoding,
    TimeIds,
    VaeFacts,
)

if TYPE_CHECKING:
    from sd_mil import Description, Port

_TASKS: Final[Mapping[int, Task]] = {1: "text-to-image", 2: "instruct-pix2pix"}
_FAMILIES: Final[Mapping[int, Family]] = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl-refiner"}
_TIME_IDS: Final[Mapping[int, TimeIds]] = {6: "size", 5: "aesthetic_score"}
SCHEDULER: Final = "scheduler/scheduler_config.json"


@dataclass(frozen=True, slots=True)
class Unstated:
    """What packages do not say of themselves; None is what nearly all of the family have.

    Args:
        family: ``sd1``, ``sd2``, ``sdxl`` or ``sdxl-refiner``; by default by the width of the text's hidden
            states (768, 1024, 2048, 1280).
        prediction_type: by default what the denoiser's metadata state, as sd-convert and Guernika write it,
            else epsilon; has to be said of an SD 2 model without, as half of these predict v.
        tokenizer: a folder with ``vocab.json`` and ``merges.txt``, where they are not beside the networks.
        scheduler: a ``scheduler_config.json``; by default the noise schedule of Stable Diffusion
            (``scaled_linear`` from 0.00085 to 0.012) with PNDM, of SDXL with Euler.
        scaling_factor: of latents; 0.18215, SDXL 0.13025.
        zero_empty_negative: SDXL's ``force_zeros_for_empty_prompt``; true of its base, false of others.
    """

    family: Family | None = None
    prediction_type: PredictionType | None = None
    tokenizer: Path | None = None
    scheduler: Path | None = None
    scaling_factor: float | None = None
    zero_empty_negative: bool | None = None


def model_facts(name: str, described: Mapping[str, Description], unstated: Unstated) -> ModelFacts:
    """The facts of a model with these networks, of which ``unet`` may be that of a ControlNet, too.

    ``name`` is its identifier where the metadata have none.

    Raises:
        BundleError: a port is missing or of another form, or something has to be told: what, and how.
    """
    unet, decoder = _inputs(described, "unet"), _outputs(described, "vae_decoder")
    sample, states = _port(unet, "sample", "unet"), _port(unet, "encoder_hidden_states", "unet")
    image = _port(decoder, "image", "vae_decoder")
    family = unstated.family or _family(states)
    channels = _port(_inputs(described, "vae_decoder"), "z", "vae_decoder").shape[1] or 0
    metadata = described["unet"].user_defined
    return ModelFacts(
        identifier=metadata.get("identifier") or name,
        family=family,
        task=_task(sample, channels),
        denoiser=DenoiserFacts("unet", "lcm" if "timestep_cond" in unet else None),
        prediction_type=unstated.prediction_type or _prediction_type(family, metadata),
        scheduler=SCHEDULER,
        sizes=(PictureSize(_size(image), LatentSize(channels, *_sides(sample))),),
        vae=VaeFacts(_scaling_factor(family, unstated), 0.0, _encodes(described, channels)),
        text_encoders=tuple(_text_encodings(described, family)),
        conditioning=ConditioningFacts(
            time_ids=_time_ids(unet),
            zero_empty_negative=_zero_empty_negative(family, unstated),
            guidance_embedding="timestep_cond" in unet,
        ),
    )


def scheduler_config(facts: ModelFacts) -> dict[str, Any]:
    """diffusers' configuration of the family's published checkpoints."""
    shared = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "prediction_type": facts.prediction_type,
    }
    if facts.family in ("sdxl", "sdxl-refiner"):
        return {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", **shared}
    return {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "set_alpha_to_one": False, **shared}


def tokenizer_config(component: str, family: Family) -> dict[str, Any]:
    """What the vocabulary does not say: the second of SDXL, and that of SD 2, pad with ``!``."""
    pads_with_exclamation = component == "text_encoder_2" or family == "sd2"
    return {
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "!" if pads_with_exclamation else "<|endoftext|>",
    }


def _inputs(described: Mapping[str, Description], network: str) -> dict[str, Port]:
    return {port.name: port for port in _description(described, network).inputs}


def _outputs(described: Mapping[str, Description], network: str) -> dict[str, Port]:
    return {port.name: port for port in _description(described, network).outputs}


def _description(described: Mapping[str, Description], network: str) -> Description:
    if network not in described:
        raise BundleError(f"expected a {network} among the networks, got {', '.join(described)}")
    return described[network]


def _port(ports: Mapping[str, Port], name: str, network: str) -> Port:
    if name not in ports:
        raise BundleError(f"expected a port {name!r} of the {network}, got {', '.join(ports)}")
    port = ports[name]
    if len(port.shape) != 4 or None in port.shape:
        raise BundleError(f"expected {name!r} of the {network} of four known sizes, got {list(port.shape)}")
    return port


def _family(states: Port) -> Family:
    width = states.shape[1] or 0
    if width not in _FAMILIES:
        expected = ", ".join(f"{width} ({family})" for width, family in _FAMILIES.items())
        raise BundleError(
            f"expected encoder_hidden_states of the width {expected}, got {width}: say the family (--family)"
        )
    return _FAMILIES[width]


def _task(sample: Port, channels: int) -> Task:
    given = sample.shape[1] or 0
    if given == 2 * channels + 1:
        return "inpainting"
    if channels == 0 or given % channels or given // channels not in _TASKS:
        raise BundleError(
            f"expected a sample of {channels}, {2 * channels} or {2 * channels + 1} channels for a latent of "
            f"{channels}, got {given}"
        )
    return _TASKS[given // channels]


def _prediction_type(family: Family, metadata: Mapping[str, str]) -> PredictionType:
    known: tuple[PredictionType, ...] = get_args(PredictionType)
    if stated := metadata.get("prediction_type"):
        if stated not in known:
            raise BundleError(f"expected a prediction_type of {', '.join(known)} in metadata, got {stated!r}")
        return next(name for name in known if name == stated)
    if family == "sd2":
        raise BundleError(
            "expected to be told what this SD 2 model predicts (--prediction-type): packages do not say; "
            "v_prediction for stable-diffusion-2 and 2-1 at 768x768, epsilon for the base models at 512x512"
        )
    return "epsilon"


def _scaling_factor(family: Family, unstated: Unstated) -> float:
    published = 0.13025 if family in ("sdxl", "sdxl-refiner") else 0.18215
    return published if unstated.scaling_factor is None else unstated.scaling_factor


def _encodes(described: Mapping[str, Description], channels: int) -> Any:
    if "vae_encoder" not in described:
        return "moments"
    (latent, *_) = _description(described, "vae_encoder").outputs
    return "latents" if len(latent.shape) == 4 and latent.shape[1] == channels else "moments"


def _text_encodings(described: Mapping[str, Description], family: Family) -> list[TextEncoding]:
    return [
        TextEncoding(
            name,
            f"tokenizer{suffix}",
            "hidden_embeds" if family.startswith("sdxl") else "last_hidden_state",
        )
        for name, suffix in (("text_encoder", ""), ("text_encoder_2", "_2"))
        if name in described
    ]


def _time_ids(unet: Mapping[str, Port]) -> TimeIds:
    if "time_ids" not in unet:
        return "none"
    count = unet["time_ids"].shape[-1] or 0
    rows = unet["sample"].shape[0] or 1
    length = count if count in _TIME_IDS else count // rows
    if length not in _TIME_IDS:
        raise BundleError(f"expected time_ids of 5 or 6 numbers, got {list(unet['time_ids'].shape)}")
    return _TIME_IDS[length]


def _size(port: Port) -> ImageSize:
    return ImageSize(*_sides(port))


def _sides(port: Port) -> tuple[int, int]:
    height, width = port.shape[2:]
    return height or 0, width or 0


def _zero_empty_negative(family: Family, unstated: Unstated) -> bool:
    return family == "sdxl" if unstated.zero_empty_negative is None else unstated.zero_empty_negative
