"""Manifests of version 1: one package for a component, one picture size, no sources of weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sd_bundle.components import SIZED_ROLES, AttentionImplementation, ComputeUnit, PortSpec, Role
from sd_bundle.facts import (
    ConditioningFacts,
    Family,
    ImageSize,
    LatentSize,
    PredictionType,
    Task,
    TextEncoding,
    VaeFacts,
)
from sd_bundle.provenance import FileRecord
from sd_bundle.schema import Json, decode, encode

_NEW_LEVELS: Final = re.compile(r"\.(variants|chunks|sizes)\[0\]")


@dataclass(frozen=True, slots=True)
class _Model:
    identifier: str
    family: Family
    task: Task
    prediction_type: PredictionType
    scheduler: str
    latent: LatentSize
    image: ImageSize
    vae: VaeFacts
    text_encoders: tuple[TextEncoding, ...]
    conditioning: ConditioningFacts


@dataclass(frozen=True, slots=True)
class _Component:
    name: str
    role: Role
    package: str
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    attention_implementation: AttentionImplementation | None
    compute_unit: ComputeUnit
    deployment_target: str


@dataclass(frozen=True, slots=True)
class _Provenance:
    source: str
    revision: str | None
    tools: Mapping[str, str]
    created: str


@dataclass(frozen=True, slots=True)
class _Manifest:
    format: Literal["sd-bundle"]
    version: Literal[1]
    model: _Model
    components: tuple[_Component, ...]
    compression: Literal["none"]
    provenance: _Provenance
    files: Mapping[str, FileRecord]


def upgrade(document: Json) -> Json:
    """The document of version 2 that says the same; what the parts mean together is checked by its reader.

    Raises:
        ManifestError: a field of version 1 is missing, unknown, or of another type.
    """
    old: dict[str, Any] = encode(decode(_Manifest, document))
    model, image = old["model"], old["model"]["image"]
    return {
        "format": old["format"],
        "version": 2,
        "model": _without(model, "image", "latent")
        | {
            "denoiser": _denoiser(model["conditioning"]),
            "sizes": [{"image": image, "latent": model["latent"]}],
        },
        "components": [_component(component, image) for component in old["components"]],
        "provenance": old["provenance"] | {"weights": None},
        "files": old["files"],
    }


def _denoiser(conditioning: Mapping[str, Json]) -> Json:
    """Only latent consistency models had their guidance scale embedded."""
    return {"architecture": "unet", "distillation": "lcm" if conditioning["guidance_embedding"] else None}


def _component(component: dict[str, Json], image: Json) -> Json:
    chunk = {name: component[name] for name in ("package", "inputs", "outputs")} | {"function": None}
    size = image if component["role"] in SIZED_ROLES else None
    return _without(component, *chunk) | {
        "variants": [{"size": size, "chunks": [chunk]}],
        "compression": None,
    }


def _without(members: dict[str, Json], *names: str) -> dict[str, Json]:
    return {name: value for name, value in members.items() if name not in names}


def where_in_version_1(where: str) -> str:
    """A JSON path of later versions as the document of version 1 has it."""
    return _NEW_LEVELS.sub("", where)
