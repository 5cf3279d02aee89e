"""What a conversion found out, kept in the user's cache folder for the next one.

Components as programs (:mod:`.lowered`), and whether a component's values fit into float16. Each is a file of
its own under the sha256 of everything that it follows from, with a sha256 of its content in front: a damaged
one is as good as none. Files appear whole, whoever else writes; the least recently used go when there are too
many.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from sd_bundle import FileHashes
from sd_bundle.drafts import replacing

from sd_convert.components.description import installed

_FORMAT: Final = 1  # of the files
_SUFFIX: Final = ".entry"
_TOOLS: Final = ("coremltools", "torch", "diffusers", "transformers", "numpy")
_OURS: Final = ("sd_convert", "sd_attention", "sd_mil")
_SHA: Final = 32  # bytes
_ABANDONED: Final = 3600.0  # seconds after which nobody still writes a file
_LARGEST_ENTRY: Final = 2**28  # bytes; SDXL's UNet has two millions


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """How many entries there are, and their bytes."""

    entries: int
    bytes: int


def default_folder() -> Path:
    """``sdc/conversion`` in this user's cache folder."""
    from platformdirs import user_cache_path

    return user_cache_path("sdc", appauthor=False) / "conversion"


@dataclass(frozen=True, slots=True)
class ConversionCache:
    """The cache in ``folder``, of ``limit`` bytes; where that cannot be read or written it is just empty."""

    folder: Path = field(default_factory=default_folder)
    limit: int = 2**28

    @property
    def hash_file(self) -> FileHashes:
        """sha256 of files, remembered here while their sizes and times stay the same."""
        return _hashes_in(self.folder)

    @property
    def title(self) -> str:
        """See :class:`~sd_convert.conversion.stores.ProgramStore`."""
        return "the cache"

    def find(self, key: str) -> bytes | None:
        """The program kept under ``key``, of the tools that are at work now."""
        return self.read(entry_key("program", key))

    def keep(self, key: str, program: bytes) -> None:
        """Keep a program that :func:`sd_convert.conversion.lowered.pack` made."""
        self.write(entry_key("program", key), program)

    def read(self, key: str) -> bytes | None:
        """What was written under ``key``, or None; it counts as used now."""
        path = self.folder / f"{key}{_SUFFIX}"
        try:
            if path.stat().st_size > _LARGEST_ENTRY:
                return None
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return content[_SHA:] if hashlib.sha256(content[_SHA:]).digest() == content[:_SHA] else None

    def write(self, key: str, content: bytes) -> None:
        """Write ``content`` under ``key``, and remove what was used least recently if there is too much."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / f"{key}{_SUFFIX}") as draft:
                draft.write_bytes(hashlib.sha256(content).digest() + content)
            self._shrink()

    def usage(self) -> CacheUsage:
        """What is in it."""
        sizes = [status.st_size for _, status in self._files(_SUFFIX)]
        return CacheUsage(len(sizes), sum(sizes))

    def clear(self) -> CacheUsage:
        """Remove everything; returns what there was."""
        usage = self.usage()
        for path, _ in (*self._files(_SUFFIX), *self._files(".partial"), *self._files(".json")):
            with suppress(OSError):
                path.unlink()
        return usage

    def _shrink(self) -> None:
        for path, status in self._files(".partial"):  # of a killed process, and keys that nobody writes again
            if time.time() - status.st_mtime > _ABANDONED:
                path.unlink(missing_ok=True)
        files = sorted(self._files(_SUFFIX), key=lambda file: file[1].st_mtime_ns, reverse=True)
        total = 0
        for path, status in files:
            total += status.st_size
            if total > self.limit:
                path.unlink(missing_ok=True)

    def _files(self, suffix: str) -> Iterator[tuple[Path, os.stat_result]]:
        with suppress(OSError):
            for path in list(self.folder.iterdir()):
                if path.suffix == suffix:
                    with suppress(OSError):
                        yield path, path.stat()


@cache
def _hashes_in(folder: Path) -> FileHashes:
    """One for the process: what cannot be written there is remembered at least as long."""
    return FileHashes(folder / "files.json")


def entry_key(kind: str, facts: Any) -> str:
    """The sha256 of ``facts`` (anything JSON can say) and of the tools that are at work."""
    text = json.dumps([_FORMAT, kind, facts, *_tools()], sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _tools() -> tuple[str, ...]:
    """Versions of libraries; of our own packages the code itself, which changes more often than those."""
    return (*(f"{tool}=={installed(tool)}" for tool in _TOOLS), *map(_source_hash, _OURS))


def _source_hash(package: str) -> str:
    spec = find_spec(package)
    sha = hashlib.sha256()
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).rglob("*.py")):
            sha.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()
