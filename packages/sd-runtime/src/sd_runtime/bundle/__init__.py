"""The bundle: a folder with a strict manifest, Core ML packages, tokenizer and scheduler files."""

from sd_runtime.bundle.facts import (
    ConditioningFacts,
    Encodes,
    Family,
    HiddenStates,
    ImageSize,
    LatentSize,
    ModelFacts,
    PredictionType,
    Task,
    TextEncoding,
    TimeIds,
    VaeFacts,
)
from sd_runtime.bundle.hashes import FileHashes
from sd_runtime.bundle.manifest import (
    AttentionImplementation,
    BundleComponent,
    ComputeUnit,
    FileRecord,
    Manifest,
    PortSpec,
    Provenance,
    Role,
    format_manifest,
    parse_manifest,
)
from sd_runtime.bundle.reader import Bundle, open_bundle
from sd_runtime.bundle.writer import Draft, new_bundle

__all__ = [
    "AttentionImplementation",
    "Bundle",
    "BundleComponent",
    "ComputeUnit",
    "ConditioningFacts",
    "Draft",
    "Encodes",
    "Family",
    "FileHashes",
    "FileRecord",
    "HiddenStates",
    "ImageSize",
    "LatentSize",
    "Manifest",
    "ModelFacts",
    "PortSpec",
    "PredictionType",
    "Provenance",
    "Role",
    "Task",
    "TextEncoding",
    "TimeIds",
    "VaeFacts",
    "format_manifest",
    "new_bundle",
    "open_bundle",
    "parse_manifest",
]
