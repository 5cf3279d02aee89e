"""What a bundle says about the checkpoint it was made from, beside the packages themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, cast

from sd_bundle import (
    SIZED_ROLES,
    AttentionImplementation,
    BundleComponent,
    Chunk,
    ComputeUnit,
    ConditioningFacts,
    DenoiserFacts,
    Draft,
    ImageSize,
    LatentSize,
    ModelFacts,
    PictureSize,
    Provenance,
    TextEncoding,
    VaeFacts,
    Variant,
)
from sd_bundle import PortSpec as BundlePort

from sd_convert.checkpoint.checkpoint import TOKENIZERS, Checkpoint
from sd_convert.checkpoint.folder import check_link
from sd_convert.checkpoint.origins import weight_sources
from sd_convert.components import ComponentKind, Ports
from sd_convert.components.component import PortSpec
from sd_convert.components.description import installed
from sd_convert.errors import IncompleteCheckpointError
from sd_convert.facts import Facts, Sizes

from .every_size import Place, image_size
from .options import ConversionOptions

_SCHEDULER: Final = "scheduler/scheduler_config.json"
_TOOLS: Final = ("sd-convert", "coremltools", "torch", "diffusers", "transformers")


def model_facts(
    facts: Facts, sizes: Sequence[Sizes], identifier: str, components: tuple[str, ...]
) -> ModelFacts:
    """What the networks mean together, in a bundle of these components; the first size is the default."""
    unet, vae = facts.unet, facts.vae
    pictures = tuple(
        PictureSize(image_size(facts, one), LatentSize(vae.channels, one.height, one.width)) for one in sizes
    )
    return ModelFacts(
        identifier=identifier,
        family=facts.family.name,
        task=unet.task.name,
        denoiser=DenoiserFacts("unet", facts.distillation),
        prediction_type=facts.prediction_type,
        scheduler=_SCHEDULER,
        sizes=pictures,
        vae=VaeFacts(vae.scaling_factor, vae.shift_factor, encodes=vae.encodes),
        text_encoders=tuple(
            TextEncoding(name, folder, hidden_states=facts.family.hidden_states)
            for name, folder in TOKENIZERS.items()
            if name in components
        ),
        conditioning=ConditioningFacts(
            time_ids=unet.time_ids,
            zero_empty_negative=facts.zeroes_empty_negative,
            guidance_embedding=unet.guidance_width is not None,
        ),
    )


def provenance(
    checkpoint: Checkpoint, components: tuple[str, ...], hash_file: Callable[[Path], str]
) -> Provenance:
    """Sources, time and the versions of everything that had a hand in the result."""
    found = {tool: installed(tool) for tool in _TOOLS}
    tools = {tool: version for tool, version in found.items() if version is not None}
    weights = weight_sources(checkpoint, components, hash_file)
    return Provenance.now(checkpoint.name, revision=checkpoint.revision, tools=tools, weights=weights)


def bundle_component(
    kind: ComponentKind, networks: Iterable[tuple[ImageSize, Place, Ports]], options: ConversionOptions
) -> BundleComponent:
    """The manifest's entry for a component: for each of its networks the picture, the place, the ports."""
    implementation = options.attention_implementation if kind.rewrites_attention else None
    variants = tuple(
        Variant(
            size if kind.role in SIZED_ROLES else None,
            (
                Chunk(
                    place.package,
                    place.function,
                    tuple(map(_bundle_port, ports.inputs)),
                    tuple(map(_bundle_port, ports.outputs)),
                ),
            ),
        )
        for size, place, ports in networks
    )
    return BundleComponent(
        name=kind.name,
        role=kind.role,
        variants=variants,
        attention_implementation=cast("AttentionImplementation | None", implementation),
        compression=None,
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
