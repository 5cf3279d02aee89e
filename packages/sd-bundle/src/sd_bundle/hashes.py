"""sha256 of files that do not change, read once and remembered.

What a file is told by (path, size, inode, times) is kept in this user's cache folder, not in the bundle: who
made the bundle cannot say what was checked.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from sd_bundle.drafts import replacing

#: Bytes of a file, each from start to stop.
Spans: TypeAlias = tuple[tuple[int, int], ...]

_CHUNK: Final = 2**20
_MOST_REMEMBERED: Final = 4096  # files
_LARGEST_MEMORY: Final = 2**22  # bytes; from there on, only what was remembered last stays


def remembered_hashes() -> FileHashes:
    """Hashes that outlive the process: ``sdc/bundles`` in this user's cache folder."""
    import platformdirs

    return FileHashes(platformdirs.user_cache_path("sdc", appauthor=False) / "bundles" / "files.json")


@dataclass(frozen=True, slots=True)
class FileHashes:
    """sha256 of files, each read once; ``memory`` is a file of JSON lines in which they outlive the process.

    A file counts as the same while its path, size, inode, and times of modification and of change stay the
    same. A ``memory`` that cannot be read or written is no error: files are then hashed again.
    """

    memory: Path | None = None
    known: dict[str, str] = field(default_factory=dict)
    _read: _Position = field(default_factory=lambda: _Position(), init=False, repr=False, compare=False)

    def __call__(self, file: Path, spans: Spans = ()) -> str:
        """The sha256 of ``file``, or of the bytes from start to stop of each span, as hexadecimal digits."""
        key = _state(file) + (f":{spans}" if spans else "")
        if key not in self.known and self.memory is not None:
            self.known.update(_recall(self.memory, self._read))
        if key not in self.known:
            before = _state(file)
            self.known[key] = _hash(file, spans or ((0, file.stat().st_size),))
            if _state(file) == before and self.memory is not None:
                _remember(self.memory, {key: self.known[key]})
        return self.known[key]


@dataclass(slots=True)
class _Position:
    """Up to where which memory was read."""

    inode: int = -1
    offset: int = 0


def _state(file: Path) -> str:
    status = file.stat()
    return f"{file.resolve()}:{status.st_size}:{status.st_ino}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _hash(file: Path, spans: Spans) -> str:
    """Reads, not maps: mapped pages would count as memory of the process."""
    sha, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with file.open("rb", buffering=0) as stream:
        for start, stop in spans:
            stream.seek(start)
            while count := stream.readinto(buffer[: min(_CHUNK, stop - stream.tell())]):
                sha.update(buffer[:count])
    return sha.hexdigest()


def _recall(memory: Path, read: _Position) -> dict[str, str]:
    """What ``memory`` holds from where it was ``read`` to; others may have added to it, or replaced it."""
    try:
        with memory.open("rb") as stream:
            inode = os.fstat(stream.fileno()).st_ino
            if inode != read.inode or stream.seek(0, os.SEEK_END) < read.offset:
                read.inode, read.offset = inode, 0
            stream.seek(read.offset)
            content = stream.read()
    except OSError:
        return {}
    read.offset += len(content)
    found: dict[str, str] = {}
    for line in content.splitlines():
        with suppress(ValueError, RecursionError):  # nothing, or half of what is being written
            entry = json.loads(line)
            pairs = entry.items() if isinstance(entry, dict) else ()
            found |= {state: sha for state, sha in pairs if isinstance(sha, str)}
    return found


def _remember(memory: Path, new: dict[str, str]) -> None:
    """Add a line at the end: to write all of a long memory anew takes longer than to hash a small file."""
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        with memory.open("ab", buffering=0) as stream:
            stream.write(f"\n{json.dumps(new)}".encode())  # not after it: what came before may have no end
            is_long = stream.tell() > _LARGEST_MEMORY
        if is_long:
            latest = list(_recall(memory, _Position()).items())[-_MOST_REMEMBERED:]
            with replacing(memory) as draft:
                draft.write_text("\n".join(json.dumps({state: sha}) for state, sha in latest))
