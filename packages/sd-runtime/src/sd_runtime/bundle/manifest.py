"""The manifest: every fact about a bundle, once. FORMAT.md is the same in prose."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from sd_runtime.bundle.paths import check_relative
from sd_runtime.bundle.schema import decode, encode, parse_json
from sd_runtime.errors import Literally, ManifestError

FORMAT: Final = "sd-bundle"
VERSION: Final = 1

Role: TypeAlias = Literal["text_encoder", "denoiser", "image_decoder", "image_encoder"]
AttentionImplementation: TypeAlias = Literal["ORIGINAL", "SPLIT_EINSUM", "SPLIT_EINSUM_V2", "SDPA", "AUTO"]
ComputeUnit: TypeAlias = Literal["ALL", "CPU_AND_GPU", "CPU_ONLY", "CPU_AND_NE"]
PredictionType: TypeAlias = Literal["epsilon", "v_prediction", "sample"]
Dtype: TypeAlias = Literal["float16", "float32", "int32"]

_MOST_ELEMENTS = 2**31
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
        _check_filled(self.name, "$.name")
        for index, size in enumerate(self.shape):
            _check_positive(size, f"$.shape[{index}]")
        if math.prod(self.shape) > _MOST_ELEMENTS:
            raise ManifestError("$.shape", f"at most {_MOST_ELEMENTS} elements", self.shape)

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
        _check_filled(self.name, "$.name")
        check_relative(self.package, "$.package")
        _check_unique((port.name for port in self.inputs), "$.inputs")
        _check_unique((port.name for port in self.outputs), "$.outputs")
        if not _TARGET.fullmatch(self.deployment_target):
            raise ManifestError("$.deployment_target", "a system such as 'macOS13'", self.deployment_target)


@dataclass(frozen=True, slots=True)
class LatentSize:
    """What the denoiser works on, without the batch: channels, height, width."""

    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse sizes below one."""
        for name in ("channels", "height", "width"):
            _check_positive(getattr(self, name), f"$.{name}")


@dataclass(frozen=True, slots=True)
class ImageSize:
    """What the decoder draws, in pixels."""

    height: int
    width: int

    def __post_init__(self) -> None:
        """Refuse sizes below one."""
        for name in ("height", "width"):
            _check_positive(getattr(self, name), f"$.{name}")


@dataclass(frozen=True, slots=True)
class VaeFacts:
    """``z = latents / scaling_factor + shift_factor`` is what the decoder takes."""

    scaling_factor: float
    shift_factor: float

    def __post_init__(self) -> None:
        """Refuse a factor that cannot be divided by, and numbers that are none."""
        if not (math.isfinite(self.scaling_factor) and self.scaling_factor > 0):
            raise ManifestError("$.scaling_factor", "a positive number", self.scaling_factor)
        if not math.isfinite(self.shift_factor):
            raise ManifestError("$.shift_factor", "a finite number", self.shift_factor)


@dataclass(frozen=True, slots=True)
class TextEncoding:
    """A text-encoder component by name, and the folder of its tokenizer's files."""

    component: str
    tokenizer: str

    def __post_init__(self) -> None:
        """Refuse paths out of the bundle."""
        check_relative(self.tokenizer, "$.tokenizer")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the networks mean together.

    ``identifier`` is the model version as the checkpoint's owner writes it. ``scheduler`` is the file that
    holds the noise schedule (diffusers' ``scheduler_config.json``). ``text_encoders`` are in the order
    in which their hidden states are joined.
    """

    identifier: str
    family: Literal["sd1", "sd2"]
    prediction_type: PredictionType
    scheduler: str
    latent: LatentSize
    image: ImageSize
    vae: VaeFacts
    text_encoders: tuple[TextEncoding, ...]

    def __post_init__(self) -> None:
        """Refuse an empty identifier and paths out of the bundle."""
        _check_filled(self.identifier, "$.identifier")
        check_relative(self.scheduler, "$.scheduler")


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
        _check_filled(self.source, "$.source")
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
        _check_unique((path.casefold() for path in self.files), "$.files")
        _check_unique((component.name for component in self.components), "$.components")
        self._check_listed()
        self._check_text_encoders()
        self._check_latent()

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

    def _check_latent(self) -> None:
        latent = (self.model.latent.channels, self.model.latent.height, self.model.latent.width)
        for index, component in enumerate(self.components):
            if component.role == "denoiser":
                shapes = {port.name: port.shape for port in component.inputs}
                if shapes.get("sample", ())[1:] != latent:
                    expected = f"an input 'sample' of shape [batch, {', '.join(map(str, latent))}]"
                    raise ManifestError(f"$.components[{index}].inputs", expected, shapes.get("sample"))


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
        expected = f"{VERSION}, the one that this sd-runtime reads (a newer one may read more)"
        raise ManifestError("$.version", expected, version)


def format_manifest(manifest: Manifest) -> str:
    """``manifest`` as the text of ``manifest.json``: the inverse of :func:`parse_manifest`."""
    return json.dumps(encode(manifest), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _check_filled(text: str, where: str) -> None:
    if not text.strip():
        raise ManifestError(where, "text", text)


def _check_positive(number: int, where: str) -> None:
    if not 1 <= number <= _MOST_ELEMENTS:
        raise ManifestError(where, "a positive size", number)


def _check_unique(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ManifestError(where, "distinct names", Literally(f"{name!r} twice"))
        seen.add(name)
