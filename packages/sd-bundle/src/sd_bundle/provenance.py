"""Where a bundle comes from: the checkpoint, what was merged into it, and the software that made it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sd_bundle.errors import ManifestError
from sd_bundle.rules import check_filled, check_unique

_CREATED: Final = "%Y-%m-%dT%H:%M:%SZ"
_MACHINE_PATH: Final = re.compile(r"/|~[^/]*/|\.{1,2}(/|$)|\\\\|[A-Za-z]:[/\\]")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def check_sha256(digits: str, where: str) -> None:
    """Refuse what is no sha256 in lower-case hexadecimal."""
    if not _SHA256.fullmatch(digits):
        raise ManifestError(where, "64 lower-case hexadecimal digits", digits)


def check_size(size: int, where: str) -> None:
    """Refuse what is no number of bytes."""
    if size < 0:
        raise ManifestError(where, "a number of bytes", size)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the bundle: bytes, and their sha256 in lower-case hexadecimal."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        """Refuse what cannot be a size or a digest."""
        check_size(self.size, "$.size")
        check_sha256(self.sha256, "$.sha256")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that weights were read from.

    ``name`` is its path in the checkpoint or on the hub (``org/model/file.safetensors``), or its file name;
    never a path of a machine. ``sha256`` is None where nobody read it whole.
    """

    name: str
    size: int
    sha256: str | None

    def __post_init__(self) -> None:
        """Refuse machine paths, and what cannot be a size or a digest."""
        _check_name(self.name, "$.name")
        check_size(self.size, "$.size")
        if self.sha256 is not None:
            check_sha256(self.sha256, "$.sha256")


@dataclass(frozen=True, slots=True)
class MergedLora:
    """A LoRA that was merged: with ``scale`` into the denoiser, ``text_scale`` into the text encoders."""

    file: SourceFile
    scale: float
    text_scale: float

    def __post_init__(self) -> None:
        """Refuse a file without its sha256, and scales that are no numbers."""
        _check_hashed(self.file, "$.file")
        for name in ("scale", "text_scale"):
            if not math.isfinite(getattr(self, name)):
                raise ManifestError(f"$.{name}", "a finite number", getattr(self, name))


@dataclass(frozen=True, slots=True)
class AddedEmbedding:
    """A textual inversion that was added: ``token`` is what prompts call it."""

    token: str
    file: SourceFile

    def __post_init__(self) -> None:
        """Refuse an empty token, and a file without its sha256."""
        check_filled(self.token, "$.token")
        _check_hashed(self.file, "$.file")


@dataclass(frozen=True, slots=True)
class CustomVae:
    """A VAE that took the place of the checkpoint's own: ``source`` is a hub id or a name."""

    source: str
    files: tuple[SourceFile, ...]

    def __post_init__(self) -> None:
        """Refuse machine paths, no files, and files without their sha256."""
        _check_name(self.source, "$.source")
        if not self.files:
            raise ManifestError("$.files", "at least one file", ())
        for index, file in enumerate(self.files):
            _check_hashed(file, f"$.files[{index}]")


@dataclass(frozen=True, slots=True)
class WeightSources:
    """What the weights of a bundle were read from.

    ``files`` are the checkpoint's own, by the component that they are for; ``loras`` were merged in their
    order; ``vae`` is None where the checkpoint's own was taken.
    """

    files: Mapping[str, tuple[SourceFile, ...]]
    loras: tuple[MergedLora, ...]
    embeddings: tuple[AddedEmbedding, ...]
    vae: CustomVae | None

    def __post_init__(self) -> None:
        """Refuse two embeddings of one token."""
        check_unique((embedding.token for embedding in self.embeddings), "$.embeddings")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the bundle comes from: a hub id or a folder's *name* (never a path), and the tools' versions.

    ``created`` is UTC, ``2026-01-31T12:00:00Z``. ``weights`` is None where nobody wrote it down, as in
    bundles of version 1.
    """

    source: str
    revision: str | None
    tools: Mapping[str, str]
    created: str
    weights: WeightSources | None = None

    def __post_init__(self) -> None:
        """Refuse machine paths and dates in another form."""
        _check_source(self.source, "$.source")
        try:
            datetime.strptime(self.created, _CREATED)
        except ValueError:
            raise ManifestError(
                "$.created", "a UTC time such as 2026-01-31T12:00:00Z", self.created
            ) from None

    @classmethod
    def now(
        cls,
        source: str,
        *,
        revision: str | None = None,
        tools: Mapping[str, str],
        weights: WeightSources | None = None,
    ) -> Provenance:
        """The provenance of a bundle that is being made at this moment."""
        return cls(source, revision, dict(tools), datetime.now(UTC).strftime(_CREATED), weights)


def _check_name(name: str, where: str) -> None:
    check_filled(name, where)
    if _MACHINE_PATH.match(name):
        raise ManifestError(where, "a name, not a path of a machine", name)


def _check_source(source: str, where: str) -> None:
    check_filled(source, where)
    if source.startswith(("/", "~", ".")) or "\\" in source:
        raise ManifestError(where, "a hub id or a folder's name, not a path", source)


def _check_hashed(file: SourceFile, where: str) -> None:
    if file.sha256 is None:
        raise ManifestError(f"{where}.sha256", "64 lower-case hexadecimal digits", None)
