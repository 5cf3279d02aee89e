"""A single file as a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sd_convert.checkpoint import CONFIG_FILES, FOLDERS, TOKENIZERS, Checkpoint, Request
from sd_convert.errors import IncompleteCheckpointError, OptionsError
from sd_convert.hub import Hub
from sd_convert.options import COMPONENTS
from sd_convert.tensors import TensorEntry
from sd_convert.tokenizer import find_tokenizers
from sd_convert.weights import open_weights

from .clip import text_config
from .detect import Place, Prediction, find_family, find_networks, find_prediction, find_resolution
from .families import (
    FAMILIES,
    SD2_V_SAMPLE_SIZE,
    model_index,
    scheduler_config,
    text_standard,
    tokenizer_config,
    vae_standard,
)
from .source import InSingleFile, network_tensors, original_tensors
from .unet import attention_heads, unet_config
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
    _complete(configs, family, request.prediction_type or prediction.kind, find_resolution(weights.metadata))
    configs["scheduler"] = scheduler_config(
        family, prediction.kind, zero_terminal_snr=prediction.zero_terminal_snr
    )
    components = _components(request, places, name)
    sources = _sources(file, places, components)
    folders = [TOKENIZERS[component] for component in components if component in TOKENIZERS]
    tokenizers = find_tokenizers(request.tokenizer, folders, hub)
    return Checkpoint(
        name=name,
        folder=file,
        revision=revision,
        components=components,
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


def _family(asked: str | None, places: tuple[Place, ...], unet: Mapping[str, Any], where: str) -> str:
    found = find_family(places, unet, where=where)
    if asked is None or asked == found:
        return found
    if asked not in FAMILIES:
        raise OptionsError(f"family: expected one of {', '.join(FAMILIES)}, got {asked!r}")
    if asked.startswith("sdxl") != found.startswith("sdxl"):
        raise OptionsError(f"family: expected {found}, as the tensors of {where} say, got {asked}")
    return asked


def _complete(
    configs: dict[str, Any], family: str, prediction_type: str, resolution: tuple[int, int] | None
) -> None:
    """Fill in what follows from the family and from the other networks."""
    standard, unet = FAMILIES[family], configs["unet"]
    configs["model_index"] = model_index(family, unet["in_channels"])
    for name, (width, _) in standard.encoders.items():
        configs.setdefault(name, text_standard(width))
    configs.setdefault("vae", vae_standard())
    configs["vae"]["scaling_factor"] = standard.scaling_factor
    unet["attention_head_dim"] = attention_heads(family, unet["block_out_channels"])
    if "addition_embed_type" in unet:
        pooled = configs["text_encoder_2"]["projection_dim"]
        numbers = 5 if family == "sdxl-refiner" else 6
        unet["addition_time_embed_dim"] = (unet["projection_class_embeddings_input_dim"] - pooled) // numbers
    factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    size: int | list[int] = standard.sample_size
    if family == "sd2" and prediction_type == "v_prediction":
        size = SD2_V_SAMPLE_SIZE
    if resolution is not None and min(resolution) >= factor:
        size = [resolution[1] // factor, resolution[0] // factor]
    unet["sample_size"] = size


def _components(request: Request, places: tuple[Place, ...], name: str) -> tuple[str, ...]:
    there = {place.folder for place in places}
    for component in request.components or ():
        if FOLDERS[component] not in there:
            raise IncompleteCheckpointError(
                f"{name}: expected the weights of {component} in the file, "
                f"got only {', '.join(sorted(there))}"
            )
    return tuple(
        component
        for component in COMPONENTS
        if FOLDERS[component] in there and (request.components is None or component in request.components)
    )


def _sources(file: Path, places: tuple[Place, ...], components: tuple[str, ...]) -> dict[str, InSingleFile]:
    folders = {FOLDERS[component] for component in components}
    sources = {place.folder: InSingleFile(file, place) for place in places if place.folder in folders}
    for source in sources.values():
        source.open()  # a tensor of another architecture is better said now than after an hour
    return sources


def _files(
    configs: Mapping[str, Any], tokenizers: Mapping[str, tuple[Path, ...]], family: str
) -> dict[str, bytes]:
    """The scheduler's config, and those of tokenizers that have only a vocabulary."""
    documents = {CONFIG_FILES["scheduler"]: configs["scheduler"]}
    for name, folder in TOKENIZERS.items():
        files = tokenizers.get(folder, ())
        if files and not any(file.name == "tokenizer_config.json" for file in files):
            _, pad = FAMILIES[family].encoders[name]
            length = configs[name]["max_position_embeddings"]
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
