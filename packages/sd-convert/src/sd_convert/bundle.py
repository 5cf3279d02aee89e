"""What a bundle says about the checkpoint it was made from, beside the packages themselves."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

from sd_bundle import (
    AttentionImplementation,
    BundleComponent,
    ComputeUnit,
    ConditioningFacts,
    DenoiserFacts,
    Draft,
    HiddenStates,
    ImageSize,
    LatentSize,
    ModelFacts,
    PictureSize,
    Provenance,
    Role,
    TextEncoding,
    VaeFacts,
)
from sd_bundle import PortSpec as BundlePort

from .checkpoint import TOKENIZERS, Checkpoint
from .component import Component, PortSpec
from .errors import IncompleteCheckpointError
from .facts import (
    distillation,
    encodes,
    family,
    guidance_width,
    is_sdxl,
    latent_channels,
    latent_size,
    model_version,
    prediction_type,
    task,
    time_ids_of,
    vae_factor,
    vae_scaling_factor,
    vae_shift_factor,
    zeroes_empty_negative,
)
from .folder import check_link
from .lowered import LoweredComponent
from .options import ConversionOptions
from .origins import weight_sources
from .rewrite import REWRITTEN

_SCHEDULER: Final = "scheduler/scheduler_config.json"
_TOOLS: Final = ("sd-convert", "coremltools", "torch", "diffusers", "transformers")
_ROLES: Final[dict[str, Role]] = {
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder",
    "unet": "denoiser",
    "vae_decoder": "image_decoder",
    "vae_encoder": "image_encoder",
    "safety_checker": "safety_checker",
}


def model_facts(
    checkpoint: Checkpoint, options: ConversionOptions, components: tuple[str, ...]
) -> ModelFacts:
    """What the networks mean together.

    Raises:
        CheckpointError: a config that says it is missing, or says it wrong.
        OptionsError: a latent size that the UNet cannot take.
    """
    height, width = latent_size(checkpoint, options)
    factor = vae_factor(checkpoint)
    return ModelFacts(
        identifier=model_version(checkpoint, options),
        family=family(checkpoint),
        task=task(checkpoint),
        denoiser=DenoiserFacts("unet", distillation(checkpoint)),
        prediction_type=prediction_type(checkpoint),
        scheduler=_SCHEDULER,
        sizes=(
            PictureSize(
                ImageSize(height * factor, width * factor),
                LatentSize(latent_channels(checkpoint), height, width),
            ),
        ),
        vae=VaeFacts(
            vae_scaling_factor(checkpoint), vae_shift_factor(checkpoint), encodes=encodes(checkpoint)
        ),
        text_encoders=_text_encodings(checkpoint, components),
        conditioning=ConditioningFacts(
            time_ids=time_ids_of(checkpoint),
            zero_empty_negative=zeroes_empty_negative(checkpoint),
            guidance_embedding=guidance_width(checkpoint) is not None,
        ),
    )


def _text_encodings(checkpoint: Checkpoint, components: tuple[str, ...]) -> tuple[TextEncoding, ...]:
    output: HiddenStates = "hidden_embeds" if is_sdxl(checkpoint) else "last_hidden_state"
    return tuple(
        TextEncoding(name, folder, hidden_states=output)
        for name, folder in TOKENIZERS.items()
        if name in components
    )


def provenance(
    checkpoint: Checkpoint, components: tuple[str, ...], hash_file: Callable[[Path], str]
) -> Provenance:
    """Sources, time and the versions of everything that had a hand in the result."""
    tools = {tool: version(tool) for tool in _TOOLS}
    weights = weight_sources(checkpoint, components, hash_file)
    return Provenance.now(checkpoint.name, revision=checkpoint.revision, tools=tools, weights=weights)


def bundle_component(
    component: Component | LoweredComponent, package: str, options: ConversionOptions, *, size: ImageSize
) -> BundleComponent:
    """The manifest's entry for ``component`` in the package of that file name; ``size`` of the picture."""
    rewritten = component.name in REWRITTEN
    return BundleComponent.of_package(
        package,
        name=component.name,
        role=_ROLES[component.name],
        size=size,
        inputs=map(_bundle_port, component.inputs),
        outputs=map(_bundle_port, component.outputs),
        attention_implementation=(
            cast(AttentionImplementation, options.attention_implementation) if rewritten else None
        ),
        compute_unit=cast(ComputeUnit, options.resolved_compute_unit),
        deployment_target=options.target,
    )


def copy_files(checkpoint: Checkpoint, draft: Draft, components: tuple[str, ...]) -> None:
    """Copy the scheduler's config always, and a tokenizer with its text encoder.

    Raises:
        IncompleteCheckpointError: the checkpoint has none.
    """
    if checkpoint.scheduler_file is None and _SCHEDULER not in checkpoint.made_files:
        raise IncompleteCheckpointError(f"{checkpoint.folder}: expected {_SCHEDULER}, got none")
    files = {} if checkpoint.scheduler_file is None else {_SCHEDULER: checkpoint.scheduler_file}
    for name, folder in TOKENIZERS.items():
        if name in components:
            files |= _tokenizer(checkpoint, folder)
    for path, file in files.items():
        if path not in checkpoint.made_files:
            check_link(file)
            draft.copy_file(file, path)
    for path, content in checkpoint.made_files.items():
        if path == _SCHEDULER or Path(path).parent in {Path(file).parent for file in files}:
            draft.add_file(path, content)
    _read_tokenizers(checkpoint, draft, components)


def _read_tokenizers(checkpoint: Checkpoint, draft: Draft, components: tuple[str, ...]) -> None:
    """Read what was only copied, as whoever draws will: better now than after the conversion."""
    from sd_tokenize import ClipTokenizer, TokenizerError

    for folder in dict.fromkeys(TOKENIZERS[name] for name in components if name in TOKENIZERS):
        try:
            ClipTokenizer.from_folder(draft.folder / folder)
        except TokenizerError as error:
            said = str(error).replace(str(draft.folder), str(checkpoint.folder))
            raise IncompleteCheckpointError(f"{said}; is the download complete?") from error


def _tokenizer(checkpoint: Checkpoint, folder: str) -> dict[str, Path]:
    files = checkpoint.tokenizers.get(folder)
    if not files:
        raise IncompleteCheckpointError(
            f"{checkpoint.folder}: expected vocab.json and merges.txt in {folder}, got none"
        )
    return {f"{folder}/{file.name}": file for file in files}


def _bundle_port(port: PortSpec) -> BundlePort:
    return BundlePort(port.name, port.shape, port.dtype)
