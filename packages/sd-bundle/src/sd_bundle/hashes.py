"""sha256 of files that do not change, read once and remembered.

What a file is told by (path, size, inode, times) is kept in this user's cache folder, not in the bundle: who
made the bundle cannot say what was checked.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from sd_bundle.drafts import replacing

#: Bytes of a file, each from start to stop.
Spans: TypeAlias = tuple[tuple[int, int], ...]

_CHUNK: Final = 2**20
_MOST_REMEMBERED: Final = 4096  # files


def remembered_hashes() -> FileHashes:
    """Hashes that outlive the process: ``sdc/bundles`` in this user's cache folder."""
    import platformdirs

    return FileHashes(platformdirs.user_cache_path("sdc", appauthor=False) / "bundles" / "files.json")


@dataclass(frozen=True, slots=True)
class FileHashes:
    """sha256 of files, each read once; ``memory`` is a JSON file in which they outlive the process.

    A file counts as the same while its path, size, inode, and times of modification and of change stay the
    same. A ``memory`` that cannot be read or written is no error: files are then hashed again.
    """

    memory: Path | None = None
    known: dict[str, str] = field(default_factory=dict)

    def __call__(self, file: Path, spans: Spans = ()) -> str:
        """The sha256 of ``file``, or of the bytes from start to stop of each span, as hexadecimal digits."""
        key = _state(file) + (f":{spans}" if spans else "")
        if key not in self.known:
            self.known.update(_recall(self.memory))
        if key not in self.known:
            before = _state(file)
            self.known[key] = _hash(file, spans or ((0, file.stat().st_size),))
            if _state(file) == before:
                _remember(self.memory, self.known)
        return self.known[key]


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


def _recall(memory: Path | None) -> dict[str, str]:
    if memory is None:
        return {}
    try:
        content = json.loads(memory.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    pairs = content.items() if isinstance(content, dict) else ()
    return {state: sha for state, sha in pairs if isinstance(sha, str)}


def _remember(memory: Path | None, known: dict[str, str]) -> None:
    if memory is None:
        return
    latest = dict(list((_recall(memory) | known).items())[-_MOST_REMEMBERED:])
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(memory) as draft:
            draft.write_text(json.dumps(latest))
