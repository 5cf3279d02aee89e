"""A folder of decoded weights, so that a compressed model is decoded once.

What is in it depends on the compressed weights and on the decoders alone; not on the processor, on OpenVINO
or on the precision, so all of them share an entry. The environment moves, bounds or disables it::

    SD_MIL_CACHE        a folder, or "off"; by default the user's cache folder
    SD_MIL_CACHE_BYTES  what all entries together may take; by default 10 GB, and a quarter of the free disk
                        at most. The entries that were not used for longest go first

Entries are written beside their place and renamed, so that processes do not see each other's half. An entry
that is not what was written is decoded again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sd_mil.errors import EngineError
from sd_mil.storage import Array, Layout, map_arrays, write_arrays

_LIMIT = 10_000_000_000
_SUFFIX, _PARTIAL = ".weights", ".partial"
#: Seconds after which a half-written entry belongs to a process that died.
_ABANDONED = 3600.0
#: Bytes of the disk that are left alone.
_RESERVE = 500_000_000


@dataclass(frozen=True, slots=True)
class Cache:
    """The entries in ``folder``, at most ``limit`` bytes of them."""

    folder: Path
    limit: int

    def entries(self) -> list[Path]:
        """Complete entries, the least recently used first."""
        with contextlib.suppress(OSError):
            return sorted(self.folder.glob(f"*{_SUFFIX}"), key=_last_used)
        return []

    @property
    def size(self) -> int:
        """The bytes of all entries."""
        return sum(map(_size, self.entries()))

    def clear(self) -> int:
        """Remove every entry and every remnant of one; the number of bytes that are free now."""
        entries = [*self.entries(), *self.folder.glob(f"*{_PARTIAL}")]
        return sum(map(_remove, entries))

    def load(self, key: bytes, layout: Layout) -> list[Array] | None:
        """The arrays of the entry, mapped; None when there is none, or it is damaged: then it is removed."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                arrays = map_arrays(file, key, layout)
            if arrays is not None:
                os.utime(path)
                return arrays
        except OSError:
            return None
        _remove(path)
        return None

    def store(self, key: bytes, layout: Layout, arrays: Iterable[Array]) -> list[Array] | None:
        """Write an entry, and map it; other entries go where the limit asks for it.

        Raises:
            OSError: the folder cannot be written, or has no room for the entry.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(layout.length)
        handle, partial = tempfile.mkstemp(_PARTIAL, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                write_arrays(file, key, layout, arrays)
                os.fsync(file.fileno())
            os.replace(partial, self._path(key))
        except BaseException:
            _remove(Path(partial))
            raise
        return self.load(key, layout)

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}{_SUFFIX}"

    def _make_room(self, needed: int) -> None:
        for partial in self.folder.glob(f"*{_PARTIAL}"):
            if time.time() - _last_used(partial) > _ABANDONED:
                _remove(partial)
        entries = self.entries()
        total = sum(map(_size, entries))
        while entries and total + needed > self.limit:
            total -= _remove(entries.pop(0))
        if total + needed > self.limit or shutil.disk_usage(self.folder).free < needed + _RESERVE:
            raise OSError(f"no room for {needed} bytes in {self.folder}, which may hold {self.limit}")


def default_cache() -> Cache | None:
    """The cache that the environment asks for; None when it is off.

    Raises:
        EngineError: the environment's limit is not a number, or its folder cannot be one.
    """
    chosen = os.environ.get("SD_MIL_CACHE", "")
    if chosen == "off":
        return None
    try:
        folder = Path(chosen).expanduser() if chosen else _users_folder()
        return Cache(folder, _limit(folder))
    except (OSError, RuntimeError) as error:  # a home that is not known, a folder that may not be looked at
        got = repr(chosen) if chosen else "the user's cache folder"
        raise EngineError(
            f"expected a folder, or 'off', in SD_MIL_CACHE, got {got}, which cannot be used: {error}"
        ) from error


def store_anywhere(
    cache: Cache | None, key: bytes, layout: Layout, arrays: Callable[[], Iterable[Array]]
) -> list[Array]:
    """What ``arrays`` returns: in the cache, in a temporary file, or in memory when no disk has room."""
    if cache is not None:
        with contextlib.suppress(OSError):
            if (stored := cache.store(key, layout, arrays())) is not None:
                return stored
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
        write_arrays(file, key, layout, arrays())
        if (mapped := map_arrays(file, key, layout)) is not None:
            return mapped
    return list(arrays())


def _users_folder() -> Path:
    try:
        import platformdirs
    except ImportError:  # it comes with the portable engine, which alone decodes into the cache
        return Path.home() / ".cache" / "sd-mil"
    return platformdirs.user_cache_path("sd-mil")


def _limit(folder: Path) -> int:
    given = os.environ.get("SD_MIL_CACHE_BYTES", "")
    if given and not (given.isdecimal() and len(given) < 20):
        raise EngineError(f"expected a number of bytes in SD_MIL_CACHE_BYTES, got {given!r}")
    if given:
        return int(given)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free + Cache(folder, 0).size
    return min(_LIMIT, free // 4)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process removed it
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> int:
    """Remove a file; the number of bytes that are free now."""
    size = _size(path)
    try:
        path.unlink()
    except OSError:  # removed by another process, or in use on a system that keeps it then
        return 0
    return size
