"""Whether the files of a bundle are still those that were there when it was opened.

A bundle is opened once and read for as long as something draws with it: networks load when they are needed. A
file that was replaced or written to in between would make a picture of two models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sd_bundle.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file from another one in its place; links are followed."""

    device: int
    inode: int
    size: int
    modified: int  # nanoseconds

    @classmethod
    def of(cls, path: Path) -> Identity | None:
        """That of the file at ``path``; None where there is none."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class OpenedFiles:
    """The files of a folder as they were; none are compared where none were recorded."""

    folder: Path = Path()
    identities: Mapping[str, Identity | None] = field(default_factory=dict)

    @classmethod
    def record(cls, folder: Path, names: Iterable[str]) -> OpenedFiles:
        """The files of these names as they are now."""
        return cls(folder, {name: Identity.of(folder / name) for name in names})

    def check(self, *within: str) -> None:
        """Compare the files that lie at or below the names ``within``; all if there is none.

        Raises:
            IntegrityError: the first one that is another one.
        """
        for name, opened in self.identities.items():
            if within and not any(name == one or name.startswith(f"{one}/") for one in within):
                continue
            if (found := Identity.of(self.folder / name)) != opened:
                raise IntegrityError(
                    f"{name}: expected the file that was there when {self.folder} was opened, got "
                    f"{'another one' if found else 'none'}: the bundle was replaced; open it again"
                )

    @contextmanager
    def unchanged(self, *within: str) -> Iterator[None]:
        """:meth:`check` before and after what is done with the files."""
        self.check(*within)
        yield
        self.check(*within)
