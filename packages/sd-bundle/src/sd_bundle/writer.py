"""Write a bundle so that a reader sees all of it or nothing of it.

Everything goes to a hidden sibling folder (same file system), which is renamed at the end. An existing bundle
is moved aside for the instant between two renames, and moved back if the second one fails. What a process
that was killed leaves behind is cleared away by the next one that writes the same bundle.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sd_bundle.components import BundleComponent
from sd_bundle.drafts import clear_leftovers, draft_folder, flush, link_or_copy, put_in_place
from sd_bundle.errors import BundleError, OutputExistsError
from sd_bundle.facts import ModelFacts
from sd_bundle.manifest import FORMAT, VERSION, Manifest, format_manifest, parse_manifest
from sd_bundle.paths import check_relative
from sd_bundle.provenance import FileRecord, Provenance
from sd_bundle.reader import MANIFEST, read_text, sha256


@dataclass(slots=True)
class Draft:
    """A bundle in the making: a temporary folder, and what is known about it so far."""

    folder: Path
    model: ModelFacts
    provenance: Provenance
    components: list[BundleComponent] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    copied: dict[tuple[int, int], Path] = field(default_factory=dict)

    def add_component(self, component: BundleComponent) -> Path:
        """Announce ``component`` and return where to write its package: a path that does not exist yet.

        Raises:
            BundleError: the draft has that package already.
            UnsupportedBundleError: it has several packages; see :meth:`add_packages`.
        """
        place = self._place(component.package)
        self.components.append(component)
        return place

    def add_packages(self, component: BundleComponent) -> tuple[Path, ...]:
        """As :meth:`add_component`, for the several ``packages`` of one: their places, in that order."""
        places = tuple(self._place(package) for package in component.packages)
        self.components.append(component)
        return places

    def add_file(self, relative: str, content: bytes) -> None:
        """Write ``content`` to ``relative``.

        Raises:
            BundleError: the draft has that file already.
        """
        self._place(relative).write_bytes(content)

    def copy_file(self, source: str | Path, relative: str) -> None:
        """Copy the file ``source`` to ``relative``; one that has several names is copied once, and linked.

        Raises:
            BundleError: the draft has that file already.
        """
        status, place = os.stat(source), self._place(relative)
        identity = status.st_dev, status.st_ino
        if identity in self.copied and status.st_nlink > 1:
            link_or_copy(self.copied[identity], place)
        else:
            shutil.copyfile(source, place)
            self.copied[identity] = place

    def add_hash(self, relative: str, sha256: str) -> None:
        """Say the sha256 of a file, known from writing it, so that it is not read again for the manifest."""
        self.hashes[relative] = sha256

    def _place(self, relative: str) -> Path:
        check_relative(relative, "$")
        if relative == MANIFEST:
            raise BundleError(f"{MANIFEST} is written last, from what the draft holds: add the facts instead")
        path = self.folder / relative
        if path.exists():
            raise BundleError(f"expected each file of a bundle to be added once, got {relative} again")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def manifest(self) -> Manifest:
        """The manifest of what the folder holds now; files whose sha256 was not said are read for it.

        Raises:
            ManifestError: the parts contradict each other, or a component's package was not written.
        """
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        return Manifest(
            format=FORMAT,
            version=VERSION,
            model=self.model,
            components=tuple(self.components),
            provenance=self.provenance,
            files={
                name: FileRecord(path.stat().st_size, self.hashes.get(name) or sha256(path))
                for name, path in zip(names, paths, strict=True)
            },
        )


@contextmanager
def new_bundle(
    path: str | Path, model: ModelFacts, *, provenance: Provenance, overwrite: bool = False
) -> Iterator[Draft]:
    """Write the bundle ``path``: fill the draft in the ``with`` block; it appears when the block ends well.

    Any exception in the block, Ctrl-C included, leaves what was at ``path`` as it was and nothing beside it.

    Raises:
        OutputExistsError: ``path`` exists, and ``overwrite`` is false or it is not a bundle.
        ManifestError: what was added does not make a valid bundle.
    """
    target = Path(path).resolve()
    clear_leftovers(target)
    _check_free(target, overwrite)
    made = _missing_parents(target)
    try:
        with draft_folder(target) as temporary:
            draft = Draft(temporary, model, provenance)
            yield draft
            _seal(draft)
            _check_free(target, overwrite)
            put_in_place(temporary, target)
    except BaseException:
        _remove_empty(made)
        raise


def _check_free(target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise OutputExistsError(f"{target} exists: choose another output, or ask to overwrite it")
    if not _is_bundle(target):
        raise OutputExistsError(f"{target} is not a bundle, so it is not overwritten: choose another output")


def _is_bundle(folder: Path) -> bool:
    """Whether ``folder`` has a manifest of this format, in whatever version and state."""
    try:
        document = json.loads(read_text(folder / MANIFEST))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def _missing_parents(target: Path) -> list[Path]:
    """The ancestors that do not exist yet, innermost first."""
    return [parent for parent in target.parents if not parent.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _seal(draft: Draft) -> None:
    """Write the manifest, read it back as a reader would, and flush everything to the disk."""
    text = format_manifest(draft.manifest())
    parse_manifest(text)
    (draft.folder / MANIFEST).write_text(text, encoding="utf-8")
    for path in (draft.folder, *draft.folder.rglob("*")):
        flush(path)
