"""The only code that touches the network: the asked files of a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sd_convert.errors import CheckpointNotFoundError

from .quiet_hub import without_telemetry

_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

#: Who asks, as the hub is told.
_NAME: Final = "sd-convert"

#: What to do about errors of the hub's client, by the names of their classes.
_HINTS: Final = {
    "GatedRepoError": "the hub wants you to accept the repository's conditions on its page, and to log in "
    "(`hf auth login`, or HF_TOKEN)",
    "RevisionNotFoundError": "the hub has the repository, but no such branch, tag or commit",
    "LocalEntryNotFoundError": "it is not in the local cache, and the hub was not asked (offline) or "
    "cannot be reached",
}


def is_repository_id(source: str) -> bool:
    """Whether ``source`` has the form ``organisation/name``."""
    return _REPOSITORY.fullmatch(source) is not None


@dataclass(frozen=True, slots=True)
class Hub:
    """How the hub is to be reached; ``offline``: from the local cache alone."""

    token: str | None = None
    cache_dir: Path | None = None
    offline: bool = False

    def repository(self, name: str, revision: str | None = None) -> Repository:
        """The repository ``organisation/name``."""
        return Repository(name, revision, self.token, self.cache_dir, self.offline)


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the hub, at a revision; ``offline``: answer from the local cache alone."""

    name: str
    revision: str | None = None
    token: str | None = None
    cache_dir: Path | None = None
    offline: bool = False

    def files(self) -> tuple[str, ...]:
        """Paths of all files of the repository.

        Raises:
            CheckpointNotFoundError: no such repository or revision, no access, no network.
        """
        from huggingface_hub import HfApi

        try:
            with without_telemetry():
                info = HfApi(token=self.token, library_name=_NAME, library_version=version(_NAME)).model_info(
                    self.name, revision=self.revision
                )
        except (OSError, _http_error(), ValueError) as error:
            raise self._not_found(error) from error
        return tuple(sibling.rfilename for sibling in info.siblings or ())

    def fetch(self, patterns: Collection[str]) -> Path:
        """The folder that has at least the files that match ``patterns``; fetches those that are not cached.

        Raises:
            CheckpointNotFoundError: no such repository or revision, no access, no network, nothing cached.
        """
        from huggingface_hub import snapshot_download

        try:
            with without_telemetry():
                folder = snapshot_download(
                    self.name,
                    revision=self.revision,
                    token=self.token,
                    library_name=_NAME,
                    library_version=version(_NAME),
                    cache_dir=self.cache_dir,
                    local_files_only=self.offline,
                    allow_patterns=sorted(patterns),
                )
        except (OSError, _http_error(), ValueError) as error:
            raise self._not_found(error) from error
        return Path(folder)

    def _not_found(self, error: Exception) -> CheckpointNotFoundError:
        at = f" at revision {self.revision}" if self.revision else ""
        place = "the local cache of the hub (offline)" if self.offline else "the hub"
        reason = " ".join(str(error).split())
        if (hint := _HINTS.get(type(error).__name__)) is not None:
            return CheckpointNotFoundError(f"{self.name}{at}: {hint}: {reason:.200}")
        return CheckpointNotFoundError(
            f"{self.name}: expected a folder of that name or a repository{at} on {place}, got neither: "
            f"{type(error).__name__}: {reason:.300}"
        )


def _http_error() -> type[Exception]:
    """The base of what the hub's HTTP client raises: httpx's, or with older versions of the hub requests'."""
    from huggingface_hub import errors

    base: type[Exception] = errors.HfHubHTTPError.__mro__[1]
    return base


def is_offline() -> bool:
    """Whether the environment forbids the network (``HF_HUB_OFFLINE``)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
