"""The manifest: every fact about a bundle, once. FORMAT.md is the same in prose."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from sd_bundle.errors import ManifestError
from sd_bundle.facts import ConditioningFacts, ModelFacts
from sd_bundle.paths import check_relative
from sd_bundle.rules import MOST_ELEMENTS, check_filled, check_positive, check_unique
from sd_bundle.schema import decode, encode, parse_json

FORMAT: Final = "sd-bundle"
VERSION: Final = 1

Role: TypeAlias = Literal["text_encoder", "denoiser", "image_decoder", "image_encoder", "safety_checker"]
AttentionImplementation: TypeAlias = Literal["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA", "AUTO"]
ComputeUnit: TypeAlias = Literal["ALL", "CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE"]
Dtype: TypeAlias = Literal["float16", "float32", "int32"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TARGET = re.compile(r"(macOS|iOS)[1-9][0-9]?")
_CREATED = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class PortSpec:
    """A named input or output of a package; ``shape`` has no unknown dimension."""

    name: str
    shape: tuple[int, ...]
    dtype: Dtype

    def __post_init__(self) -> None:
        """Refuse empty names, and shapes that no array can have."""
        check_filled(self.name, "$.name")
        for index, size in enumerate(self.shape):
            check_positive(size, f"$.shape[{index}]")
        if math.prod(self.shape) > MOST_ELEMENTS:
            raise ManifestError("$.shape", f"at most {MOST_ELEMENTS} elements", self.shape)

    def __str__(self) -> str:
        """``sample: float16[2, 4, 64, 64]``."""
        return f"{self.name}: {self.dtype}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class BundleComponent:
    """One network of the bundle: where it lies, what it is for, and its ports.

    ``name`` is the ecosystem's (``unet``); ``role`` is what the pipeline looks for.
    ``attention_implementation`` is null for networks whose attention was left as it was.
    """

    name: str
    role: Role
    package: str
    inputs: tuple[PortSpec, ...]
    outputs: tuple[PortSpec, ...]
    attention_implementation: AttentionImplementation | None
    compute_unit: ComputeUnit
    deployment_target: str

    def __post_init__(self) -> None:
        """Refuse paths out of the bundle, ports of one name, and unknown systems."""
        check_filled(self.name, "$.name")
        check_relative(self.package, "$.package")
        check_unique((port.name for port in self.inputs), "$.inputs")
        check_unique((port.name for port in self.outputs), "$.outputs")
        if not _TARGET.fullmatch(self.deployment_target):
            raise ManifestError("$.deployment_target", "a system such as 'macOS13'", self.deployment_target)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the bundle: bytes, and their sha256 in lower-case hexadecimal."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        """Refuse what cannot be a size or a digest."""
        if self.size < 0:
            raise ManifestError("$.size", "a number of bytes", self.size)
        if not _SHA256.fullmatch(self.sha256):
            raise ManifestError("$.sha256", "64 lower-case hexadecimal digits", self.sha256)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the bundle comes from: a hub id or a folder's *name* (never a path), and the tools' versions.

    ``created`` is UTC, ``2026-01-31T12:00:00Z``.
    """

    source: str
    revision: str | None
    tools: Mapping[str, str]
    created: str

    def __post_init__(self) -> None:
        """Refuse machine paths and dates in another form."""
        check_filled(self.source, "$.source")
        if self.source.startswith(("/", "~", ".")) or "\\" in self.source:
            raise ManifestError("$.source", "a hub id or a folder's name, not a path", self.source)
        try:
            datetime.strptime(self.created, _CREATED)
        except ValueError:
            raise ManifestError(
                "$.created", "a UTC time such as 2026-01-31T12:00:00Z", self.created
            ) from None

    @classmethod
    def now(cls, source: str, *, revision: str | None = None, tools: Mapping[str, str]) -> Provenance:
        """The provenance of a bundle that is being made at this moment."""
        return cls(source, revision, dict(tools), datetime.now(UTC).strftime(_CREATED))


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of ``manifest.json``. ``files`` lists every file but ``manifest.json`` itself."""

    format: Literal["sd-bundle"]
    version: Literal[1]
    model: ModelFacts
    components: tuple[BundleComponent, ...]
    compression: Literal["none"]
    provenance: Provenance
    files: Mapping[str, FileRecord]

    def __post_init__(self) -> None:
        """Refuse a manifest whose parts contradict each other."""
        for path in self.files:
            check_relative(path, f"$.files.{path}")
        check_unique((path.casefold() for path in self.files), "$.files")
        check_unique((component.name for component in self.components), "$.components")
        self._check_listed()
        self._check_text_encoders()
        self._check_hidden_states()
        self._check_denoisers()

    def _check_listed(self) -> None:
        if self.model.scheduler not in self.files:
            raise ManifestError("$.model.scheduler", "a file that $.files lists", self.model.scheduler)
        folders = [(f"$.components[{i}].package", c.package) for i, c in enumerate(self.components)]
        folders += [
            (f"$.model.text_encoders[{i}].tokenizer", t.tokenizer)
            for i, t in enumerate(self.model.text_encoders)
        ]
        for where, folder in folders:
            if not any(path.startswith(folder + "/") for path in self.files):
                raise ManifestError(where, "a folder with files that $.files lists", folder)

    def _check_text_encoders(self) -> None:
        declared = [c.name for c in self.components if c.role == "text_encoder"]
        ordered = [t.component for t in self.model.text_encoders]
        if sorted(declared) != sorted(ordered):
            expected = f"each component with the role text_encoder once ({', '.join(declared) or 'none'})"
            raise ManifestError("$.model.text_encoders", expected, ordered)

    def _check_hidden_states(self) -> None:
        components = {component.name: component for component in self.components}
        for index, encoding in enumerate(self.model.text_encoders):
            names = [port.name for port in components[encoding.component].outputs]
            if encoding.hidden_states not in names:
                where = f"$.model.text_encoders[{index}].hidden_states"
                raise ManifestError(where, f"{encoding.hidden_states!r} among the component's outputs", names)

    def _check_denoisers(self) -> None:
        for index, component in enumerate(self.components):
            if component.role == "denoiser":
                shapes = {port.name: port.shape for port in component.inputs}
                _check_sample(shapes, self.model, f"$.components[{index}].inputs")
                _check_conditioning(shapes, self.model.conditioning, f"$.components[{index}].inputs")


def _check_sample(shapes: Mapping[str, tuple[int, ...]], model: ModelFacts, where: str) -> None:
    """Hold the ``sample`` of a denoiser against the latent and the task."""
    expected = (model.denoiser_channels, model.latent.height, model.latent.width)
    if shapes.get("sample", ())[1:] != expected:
        sizes = ", ".join(map(str, expected))
        wanted = f"an input 'sample' of shape [batch, {sizes}] for {model.task}"
        raise ManifestError(where, wanted, shapes.get("sample"))


def _check_conditioning(
    shapes: Mapping[str, tuple[int, ...]], conditioning: ConditioningFacts, where: str
) -> None:
    """Hold a denoiser's further inputs against what the manifest says that they mean."""
    count = conditioning.time_id_count
    if count and (shapes.get("time_ids", ())[1:] != (count,) or "text_embeds" not in shapes):
        expected = f"inputs 'time_ids' of shape [batch, {count}] and 'text_embeds'"
        raise ManifestError(where, expected, sorted(shapes))
    due = {"time_ids": bool(count), "timestep_cond": conditioning.guidance_embedding}
    for name, is_due in due.items():
        if (name in shapes) != is_due:
            expected = f"{'an' if is_due else 'no'} input {name!r}, as $.model.conditioning has it"
            raise ManifestError(where, expected, sorted(shapes))


def parse_manifest(text: str) -> Manifest:
    """The manifest in ``text``.

    Raises:
        ManifestError: not JSON, another format or version, or a rule of FORMAT.md broken.
    """
    document = parse_json(text)
    if isinstance(document, dict):  # said first: a later version may well have other fields
        _check_format(document)
    return decode(Manifest, document)


def _check_format(document: Mapping[str, object]) -> None:
    if document.get("format") != FORMAT:
        raise ManifestError("$.format", repr(FORMAT), document.get("format"))
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        expected = f"{VERSION}, the one that this sd-bundle reads (a newer one may read more)"
        raise ManifestError("$.version", expected, version)


def format_manifest(manifest: Manifest) -> str:
    """``manifest`` as the text of ``manifest.json``: the inverse of :func:`parse_manifest`."""
    return json.dumps(encode(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
