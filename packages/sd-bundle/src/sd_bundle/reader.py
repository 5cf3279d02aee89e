"""Open a bundle: its manifest, parsed and held against the folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sd_bundle.components import BundleComponent, Form, Role, Variant
from sd_bundle.errors import BundleError, IntegrityError, Literally, ManifestError, MissingComponentError
from sd_bundle.facts import ImageSize
from sd_bundle.hashes import FileHashes, remembered_hashes
from sd_bundle.identity import OpenedFiles
from sd_bundle.manifest import Manifest, parse_manifest
from sd_bundle.paths import inside
from sd_bundle.schema import parse_json

MANIFEST = "manifest.json"
_LEFT_BY_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")
_LARGEST_TEXT = 16 * 2**20  # bytes; a manifest has some tens of kilobytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder with the files that its manifest lists, no other, in the sizes that it lists.

    What they hold is checked when they are about to be used.
    """

    path: Path
    manifest: Manifest
    opened: OpenedFiles = field(default_factory=OpenedFiles, compare=False, repr=False)
    hashes: FileHashes = field(default_factory=FileHashes, compare=False, repr=False)

    def components(self, role: Role) -> tuple[BundleComponent, ...]:
        """The components with ``role``, in the manifest's order; possibly none."""
        return tuple(component for component in self.manifest.components if component.role == role)

    def only(self, role: Role) -> BundleComponent:
        """The one component with ``role``.

        Raises:
            MissingComponentError: there is none, or more than one.
        """
        found = self.components(role)
        if len(found) != 1:
            have = ", ".join(f"{c.name} ({c.role})" for c in self.manifest.components) or "none"
            raise MissingComponentError(
                f"expected one component with the role {role} in {self.path}, got {len(found)}; "
                f"it has: {have}. Convert the checkpoint with that component"
            )
        return found[0]

    def component(self, name: str) -> BundleComponent:
        """The component called ``name``.

        Raises:
            MissingComponentError: there is none.
        """
        for component in self.manifest.components:
            if component.name == name:
                return component
        have = ", ".join(c.name for c in self.manifest.components) or "none"
        raise MissingComponentError(f"expected a component {name!r} in {self.path}, which has: {have}")

    def at_size(self, size: ImageSize | None = None, form: Form | None = None) -> Bundle:
        """The same bundle as if it had but the pictures of ``size``; None is the model's first size.

        Of the variants of that size, each network has the one of ``form``, or that which is most like it; by
        default the first.

        Raises:
            MissingComponentError: the model does not draw that size.
        """
        sizes = self.manifest.model.sizes
        chosen = [each for each in sizes if each.image == (size or sizes[0].image)]
        if not chosen:
            have = ", ".join(str(each.image) for each in sizes)
            raise MissingComponentError(f"expected a picture size of {self.path} ({have}), got {size}")
        if len(sizes) == 1 and all(len(component.variants) == 1 for component in self.manifest.components):
            return self
        model = replace(self.manifest.model, sizes=tuple(chosen))
        components = (_at_size(component, chosen[0].image, form) for component in self.manifest.components)
        kept = tuple(component for component in components if component is not None)
        return replace(self, manifest=replace(self.manifest, model=model, components=kept))

    def forms(self, size: ImageSize | None = None) -> tuple[Form, ...]:
        """The forms that the denoiser has for pictures of ``size``, None the model's first; possibly none."""
        wanted = size or self.manifest.model.image
        denoisers = self.components("denoiser")
        return tuple(v.form for each in denoisers for v in each.variants if v.size in (None, wanted))

    def package(self, component: BundleComponent) -> Path:
        """The ``.mlpackage`` folder of ``component``, which has but one.

        Its files are read now and held against their sha256, unless that was done before and they have not
        changed since.

        Raises:
            IntegrityError: it is not the one that was opened, or not the one that the manifest lists.
            UnsupportedBundleError: it has several.
        """
        return self.checked_folder(component.package)

    def checked_folder(self, folder: str) -> Path:
        """A folder of the bundle, such as a chunk's ``package``, with its files held against their sha256.

        Raises:
            IntegrityError: it is not the one that was opened, or not the one that the manifest lists.
        """
        self.opened.check(MANIFEST, folder)
        self._check_contents(folder)
        return self.path / folder

    def unchanged(self, *within: str) -> AbstractContextManager[None]:
        """A context in which files or folders of the bundle are read: they have to be those that were opened.

        Raises:
            IntegrityError: one of them, or the manifest, was replaced or changed, before or meanwhile; or one
                is not what the manifest lists.
        """
        self.opened.check(MANIFEST, *within)
        self._check_contents(*within)
        return self.opened.unchanged(MANIFEST, *within)

    def noise_config(self) -> Mapping[str, Any]:
        """The scheduler's configuration, with the manifest's prediction type filled in.

        For SD 1 and 2, as diffusers' ``StableDiffusionPipeline`` does when it loads one, ``steps_offset``
        becomes 1 and a ``clip_sample`` of true becomes false: old configurations state what was never meant.

        Raises:
            BundleError: the file is not a JSON object, or states another prediction type.
            IntegrityError: it is not the file that was opened.
        """
        path = self.manifest.model.scheduler
        try:
            # diffusers writes -Infinity as DPM-Solver++'s lambda_min_clipped
            with self.unchanged(path):
                config = parse_json(read_text(self.path / path), infinities=True)
        except ManifestError as error:
            raise BundleError(f"{path}: expected {error.expected}, got {error.got}") from None
        if not isinstance(config, dict):
            raise BundleError(f"{path}: expected a JSON object, got {type(config).__name__}")
        stated, ours = config.get("prediction_type"), self.manifest.model.prediction_type
        if stated not in (None, ours):
            raise BundleError(f"{path}: expected the manifest's prediction_type {ours!r}, got {stated!r}")
        meant = _as_meant(config) if self.manifest.model.family in ("sd1", "sd2") else {}
        return {**config, **meant, "prediction_type": ours}

    def check_integrity(self) -> None:
        """Hash every listed file, whatever is remembered of it.

        Raises:
            IntegrityError: the first file whose sha256 is not the manifest's.
        """
        self._compare(self.manifest.files, sha256)

    def _check_contents(self, *within: str) -> None:
        """The listed files at or below these names, by what is remembered of them."""
        listed = self.manifest.files
        chosen = (path for path in listed if any(path == one or path.startswith(f"{one}/") for one in within))
        self._compare(chosen, self.hashes)

    def _compare(self, paths: Iterable[str], hash_file: Callable[[Path], str]) -> None:
        for path in paths:
            expected, got = self.manifest.files[path].sha256, hash_file(self.path / path)
            if got != expected:
                raise IntegrityError(f"{path}: expected sha256 {expected}, got {got}; copy it again")


def _at_size(component: BundleComponent, size: ImageSize, form: Form | None) -> BundleComponent | None:
    """``component`` for pictures of one size, in one form; None if it has no network for those."""
    variants = [variant for variant in component.variants if variant.size in (None, size)]
    if not variants:
        return None
    if form is None:
        return replace(component, variants=(variants[0],))

    def likeness(variant: Variant) -> tuple[bool, ...]:
        return variant.form == form, variant.form.tokens == form.tokens, variant.form.batch == form.batch

    return replace(component, variants=(max(variants, key=likeness),))  # of equals, the first


def _as_meant(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"steps_offset": 1} | ({"clip_sample": False} if config.get("clip_sample") else {})


def open_bundle(path: str | Path) -> Bundle:
    """Read and check the manifest of the bundle at ``path``; names and sizes are compared, not contents.

    Raises:
        BundleError: not a bundle.
        ManifestError: ``manifest.json`` breaks a rule, or a listed path leads out of the folder.
        IntegrityError: a listed file is missing or has another size, a file is not listed, or the bundle is
            being replaced.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BundleError(f"expected a bundle folder at {folder}, got {_what_is(folder)}")
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"expected {MANIFEST} in {folder}, got none: this folder is not a bundle")
    inside(folder, MANIFEST, "$")
    before = OpenedFiles.record(folder, [MANIFEST])
    manifest = parse_manifest(read_text(folder / MANIFEST))
    opened = OpenedFiles.record(folder, [MANIFEST, *manifest.files])
    for relative, record in manifest.files.items():
        _check_size(inside(folder, relative, f"$.files.{relative}"), relative, record.size)
    _refuse_unlisted(folder, manifest)
    before.check()
    opened.check()
    return Bundle(folder, manifest, opened, remembered_hashes())


def _refuse_unlisted(folder: Path, manifest: Manifest) -> None:
    """Refuse files in the folders of the bundle that the manifest does not know of."""
    owned = {path.partition("/")[0] for path in manifest.files if "/" in path}
    for name in sorted(owned):
        for here, folders, files in os.walk(folder / name):  # links to folders are not entered
            links = [one for one in folders if (Path(here) / one).is_symlink()]
            for file in (*files, *links):
                relative = (Path(here) / file).relative_to(folder).as_posix()
                if relative not in manifest.files and file not in _LEFT_BY_SYSTEMS:
                    raise IntegrityError(
                        f"{relative}: expected only files that {MANIFEST} lists, got this one; remove it"
                    )


def _check_size(path: Path, relative: str, size: int) -> None:
    if not path.is_file():
        raise IntegrityError(f"{relative}: expected a file of {size} bytes, got {_what_is(path)}")
    if (found := path.stat().st_size) != size:
        raise IntegrityError(f"{relative}: expected {size} bytes, got {found}; copy it again")


def _what_is(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a file" if path.exists() else "nothing"


def read_text(path: Path) -> str:
    """A small UTF-8 file of a bundle.

    Raises:
        ManifestError: too large, or not UTF-8.
    """
    if (size := path.stat().st_size) > _LARGEST_TEXT:
        raise ManifestError("$", f"at most {_LARGEST_TEXT} bytes", size)
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError("$", "UTF-8 text", Literally(f"byte {error.object[error.start]:#04x}")) from None


def sha256(path: Path) -> str:
    """The digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
