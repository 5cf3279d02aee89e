"""Where programs without weights are kept: in the user's cache, in a bundle, and in this package.

Each is found by the sha256 of everything that it follows from but its weights. In bundles and in this
package it is a file of its own, compressed with LZMA, without pickle, and bounded when it is read.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

FOLDER: Final = "programs"
_SUFFIX: Final = ".program"
_LARGEST: Final = 2**28  # bytes of a program; SDXL's UNet has a tenth of that


class ProgramStore(Protocol):
    """A place where programs are."""

    @property
    def title(self) -> str:
        """What users are told of it."""
        ...

    def find(self, key: str) -> bytes | None:
        """The program kept under a key, or None; a damaged one is none."""
        ...


@dataclass(frozen=True, slots=True)
class ProgramFolder:
    """A folder of a bundle, or of this package, with a file for each program."""

    folder: Path
    title: str

    def find(self, key: str) -> bytes | None:
        """See :class:`ProgramStore`."""
        return _read(self.folder / f"{key}{_SUFFIX}")

    def all(self) -> Iterator[bytes]:
        """Every program that can be read."""
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            if (content := _read(path)) is not None:
                yield content


#: The programs of the architectures that nearly everyone converts, made by ``tools/make_programs.py``.
SHIPPED: Final = ProgramFolder(Path(__file__).parent.parent / "shipped", "sd-convert")


def file_name(key: str) -> str:
    """Of the file in a folder of programs."""
    return f"{key}{_SUFFIX}"


def compressed(content: bytes, preset: int = 1) -> bytes:
    """A program as its file holds it; equal programs are equal files."""
    return lzma.compress(content, preset=preset)


def _read(path: Path) -> bytes | None:
    try:
        if path.stat().st_size > _LARGEST:
            return None
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2**28)
        content = decompressor.decompress(path.read_bytes(), _LARGEST)
        return content if decompressor.eof else None
    except (OSError, lzma.LZMAError):
        return None
