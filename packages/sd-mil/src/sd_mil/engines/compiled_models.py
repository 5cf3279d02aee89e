"""What Core ML compiled, kept by content: the second launch loads it instead of compiling again.

Core ML compiles a package for the Mac at hand whenever it is loaded, and keeps the result as long as the
model. Here a copy stays in the folder ``compiled`` of the cache (``SD_MIL_CACHE`` moves it or turns it off,
``SD_MIL_CACHE_BYTES`` bounds it), under the digest of the package's files and of the system's version.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from sd_mil.cache import default_cache
from sd_mil.format.appearing import appearing

_SUFFIX = ".mlmodelc"


@dataclass(frozen=True, slots=True)
class CompiledEntry:
    """Where the compiled form of a package is kept, or will be; ``limit`` in bytes is that of all entries."""

    path: Path
    limit: int

    @property
    def is_there(self) -> bool:
        """Whether it was kept, and has not gone since."""
        return self.path.is_dir()

    def use(self) -> str:
        """The path; the entry counts as used now."""
        with contextlib.suppress(OSError):
            os.utime(self.path)
        return str(self.path)

    def keep(self, compiled: str | os.PathLike[str]) -> None:
        """Copy what Core ML compiled, whole or not at all; without room for it, nothing."""
        with contextlib.suppress(OSError):  # no room, no right, or another process was first: next time then
            _make_room(self.path.parent, self.limit - _bytes(Path(compiled)))
            with appearing(self.path) as folder:
                shutil.copytree(compiled, folder, dirs_exist_ok=True)

    def forget(self) -> None:
        """Remove an entry that Core ML does not load."""
        shutil.rmtree(self.path, ignore_errors=True)


def entry_of(package: str) -> CompiledEntry | None:
    """That of the model at this path; None where the cache is off.

    Raises:
        OSError: the model cannot be read.
    """
    cache = default_cache()
    if cache is None:
        return None
    folder = cache.folder / "compiled"
    return CompiledEntry(folder / f"{content_digest(Path(package))}{_SUFFIX}", cache.limit)


def content_digest(path: Path) -> str:
    """Of every file at or below ``path`` by its name inside, and of the system that compiles."""
    digest = hashlib.sha256(f"{platform.mac_ver()[0]} {platform.machine()}\n".encode())
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for each in files:
        with each.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{each.relative_to(path).as_posix()} {inner}\n".encode())
    return digest.hexdigest()


def _make_room(folder: Path, limit: int) -> None:
    """Remove the entries that were not used for longest, until the others take ``limit`` bytes at most."""
    entries = sorted(folder.glob(f"*{_SUFFIX}"), key=lambda each: each.stat().st_mtime)
    sizes = {each: _bytes(each) for each in entries}
    total = sum(sizes.values())
    if limit < 0:
        raise OSError("no room")
    while entries and total > limit:
        total -= sizes[entries[0]]
        shutil.rmtree(entries.pop(0), ignore_errors=True)


def _bytes(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
