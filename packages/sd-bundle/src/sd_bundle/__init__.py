"""The bundle: a folder with a strict manifest, Core ML packages, tokenizer and scheduler files."""

from sd_bundle.errors import (
    BundleError,
    IntegrityError,
    ManifestError,
    MissingComponentError,
    OutputExistsError,
    PortsError,
)
from sd_bundle.facts import (
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
from sd_bundle.hashes import FileHashes
from sd_bundle.manifest import (
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
from sd_bundle.paths import check_relative
from sd_bundle.reader import Bundle, open_bundle
from sd_bundle.schema import decode, encode, parse_json
from sd_bundle.writer import Draft, new_bundle

__all__ = [
    "AttentionImplementation",
    "Bundle",
    "BundleComponent",
    "BundleError",
    "ComputeUnit",
    "ConditioningFacts",
    "Draft",
    "Encodes",
    "Family",
    "FileHashes",
    "FileRecord",
    "HiddenStates",
    "ImageSize",
    "IntegrityError",
    "LatentSize",
    "Manifest",
    "ManifestError",
    "MissingComponentError",
    "ModelFacts",
    "OutputExistsError",
    "PortSpec",
    "PortsError",
    "PredictionType",
    "Provenance",
    "Role",
    "Task",
    "TextEncoding",
    "TimeIds",
    "VaeFacts",
    "check_relative",
    "decode",
    "encode",
    "format_manifest",
    "new_bundle",
    "open_bundle",
    "parse_json",
    "parse_manifest",
]
