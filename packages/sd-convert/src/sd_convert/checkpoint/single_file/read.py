"""A single file as a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sd_convert.checkpoint.checkpoint import CONFIG_FILES, TOKENIZERS, Checkpoint, Request
from sd_convert.checkpoint.hub import Hub
from sd_convert.checkpoint.tensors import TensorEntry
from sd_convert.checkpoint.tokenizer import find_tokenizers
from sd_convert.checkpoint.weights import open_weights
from sd_convert.errors import IncompleteCheckpointError, OptionsError
from sd_convert.facts.section import Section
from sd_convert.facts.unet import task_of
from sd_convert.families import FAMILIES, Family, Prediction

from .clip import text_config
from .detect import Place, find_family, find_networks, find_prediction, find_resolution
from .source import InSingleFile, network_tensors, original_tensors
from .unet import unet_config
from .unsaid import text_standard, tokenizer_config, vae_standard
from .vae import vae_config


def read_single_file(
    file: Path, name: str, request: Request, hub: Hub, *, revision: str | None = None
) -> Checkpoint:
    """The checkpoint in ``file``: configs from its tensors, the rest as its family was published.

    Raises: see :func:`sd_convert.open_checkpoint`.
    """
    weights = open_weights([file])
    places = find_networks(weights.entries, variant=request.variant, where=name)
    configs = _network_configs(weights.entries, places, where=name)
    family = _family(request.family, places, configs["unet"], name)
    prediction = find_prediction(weights, family, channels=configs["unet"]["in_channels"])
    resolution = find_resolution(weights.metadata)
    _complete(configs, family, request.prediction_type or prediction.kind, resolution, where=name)
    configs["scheduler"] = family.scheduler_config(prediction)
    networks = _networks(request, places, name)
    sources = _sources(file, places, networks.values())
    folders = [TOKENIZERS[component] for component in networks if component in TOKENIZERS]
    tokenizers = find_tokenizers(request.tokenizer, folders, hub)
    return Checkpoint(
        name=name,
        folder=file,
        revision=revision,
        networks=networks,
        configs=configs,
        tokenizers=tokenizers,
        scheduler_file=None,
        sources=sources,
        variants={place.folder: "ema" if place.layout == "unet_ema" else "" for place in places},
        made_files=_files(configs, tokenizers, family),
        notes=_notes(request, prediction, places),
    )


def _network_configs(
    entries: Mapping[str, TensorEntry], places: tuple[Place, ...], *, where: str
) -> dict[str, Any]:
    configs: dict[str, Any] = {}
    for place in places:
        within = f"{where}: {place.prefix.removesuffix('.') or place.folder}"
        if place.folder == "unet":
            configs["unet"] = unet_config(original_tensors(entries, place), where=within)
        elif place.folder == "vae":
            configs["vae"] = vae_config(original_tensors(entries, place), where=within)
        else:
            tensors = network_tensors(entries, place, where=within)
            configs[place.folder] = text_config(tensors, openai=place.layout == "clip", where=within)
    return configs


def _family(asked: str | None, places: tuple[Place, ...], unet: Mapping[str, Any], where: str) -> Family:
    found = find_family(places, unet, where=where)
    if asked is None:
        return found
    if asked not in FAMILIES:
        raise OptionsError(f"family: expected one of {', '.join(FAMILIES)}, got {asked!r}")
    if FAMILIES[asked].takes_sizes != found.takes_sizes:
        raise OptionsError(f"family: expected {found.name}, as the tensors of {where} say, got {asked}")
    return FAMILIES[asked]


def _complete(
    configs: dict[str, Any],
    family: Family,
    prediction_type: str,
    resolution: tuple[int, int] | None,
    *,
    where: str,
) -> None:
    """Fill in what follows from the family and from the other networks."""
    unet = configs["unet"]
    configs["model_index"] = family.model_index(task_of(Section(f"{where}/unet", unet)))
    for encoder in family.encoders:
        configs.setdefault(encoder.folder, text_standard(encoder.width))
    configs.setdefault("vae", vae_standard())
    configs["vae"]["scaling_factor"] = family.scaling_factor
    unet["attention_head_dim"] = family.heads(unet["block_out_channels"])
    if family.takes_sizes:
        pooled = configs[family.encoders[-1].folder]["projection_dim"]
        room = unet["projection_class_embeddings_input_dim"] - pooled
        unet["addition_time_embed_dim"] = room // family.time_id_count
    factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    size: int | list[int] = family.latent_side(prediction_type)
    if resolution is not None and min(resolution) >= factor:
        size = [resolution[1] // factor, resolution[0] // factor]
    unet["sample_size"] = size


def _networks(request: Request, places: tuple[Place, ...], name: str) -> dict[str, str]:
    """The folder of each component to open."""
    there = {place.folder for place in places}
    for component in request.components or ():
        if request.folders[component] not in there:
            raise IncompleteCheckpointError(
                f"{name}: expected the weights of {component} in the file, "
                f"got only {', '.join(sorted(there))}"
            )
    return {component: folder for component, folder in request.chosen().items() if folder in there}


def _sources(file: Path, places: tuple[Place, ...], folders: Collection[str]) -> dict[str, InSingleFile]:
    sources = {place.folder: InSingleFile(file, place) for place in places if place.folder in folders}
    for source in sources.values():
        source.open()  # a tensor of another architecture is better said now than after an hour
    return sources


def _files(
    configs: Mapping[str, Any], tokenizers: Mapping[str, tuple[Path, ...]], family: Family
) -> dict[str, bytes]:
    """The scheduler's config, and those of tokenizers that have only a vocabulary."""
    documents = {CONFIG_FILES["scheduler"]: configs["scheduler"]}
    for name, folder in TOKENIZERS.items():
        files = tokenizers.get(folder, ())
        if files and not any(file.name == "tokenizer_config.json" for file in files):
            length = configs[name]["max_position_embeddings"]
            pad = family.encoder(name).pad_token
            documents[f"{folder}/tokenizer_config.json"] = tokenizer_config(pad, length)
    return {path: (json.dumps(content, indent=2) + "\n").encode() for path, content in documents.items()}


def _notes(request: Request, prediction: Prediction, places: tuple[Place, ...]) -> tuple[str, ...]:
    notes = [prediction.note] if prediction.note and request.prediction_type is None else []
    there = {place.folder for place in places}
    if request.components is None and "vae" not in there:
        notes.append("the file has no VAE: --custom-vae-version names one")
    if request.components is None and not there & set(TOKENIZERS):
        notes.append("the file has no text encoder: the bundle will have none")
    return tuple(notes)
