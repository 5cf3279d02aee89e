"""The tree of the Hub's ``apple/coreml-*`` repositories: packages and compiled models, zips, a card.

Source: the layout of apple/coreml-stable-diffusion-v1-5 and its kin. Hugging Face's app
(swift-coreml-diffusers, ``PipelineLoader.swift``) downloads ``<repository>_<attention>_compiled.zip``,
unpacks it into its folder of models, and opens the folder that has the zip's name without the suffix.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sd_bundle import Bundle
from sd_bundle.drafts import draft_folder, link_or_copy

from sdc.resources.card import model_card
from sdc.resources.names import ResourcesError
from sdc.resources.swift import Compile, CompiledResource, write_resources

#: What the Hub takes as the name of a repository.
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
#: Compressing weights takes minutes and saves some percent.
_STORED: Final = ".bin"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class HubRepository:
    """What was written: the compiled models by attention, and the bytes of each zip by its name."""

    path: Path
    models: dict[str, tuple[CompiledResource, ...]]
    zips: dict[str, int]


def repository_name(bundle: Bundle) -> str:
    """``coreml-stable-diffusion-v1-5`` of ``stable-diffusion-v1-5/stable-diffusion-v1-5``."""
    model = bundle.manifest.model.identifier.rpartition("/")[2]
    return f"coreml-{re.sub(r'[^A-Za-z0-9._-]', '-', model)}"[:96]


def write_hub_repository(
    bundles: Sequence[Bundle],
    folder: Path,
    compile_package: Compile,
    *,
    name: str | None = None,
    license_id: str = "other",
    progress: Callable[[str], None] = lambda _: None,
) -> HubRepository:
    """Write a folder that can be uploaded as a repository, of one model with one or several attentions.

    Packages are hard links where the file system has them. ``name`` is the repository's, without its owner;
    ``license_id`` is the Hub's word for the licence of the checkpoint.

    Raises:
        ResourcesError: the bundles are of two models, or two have the same attention, or a name that the Hub
            does not take; and as :func:`~sdc.resources.write_resources`, with its other errors.
    """
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder} exists: choose another output")
    repository = name or repository_name(bundles[0])
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise ResourcesError(f"expected a name that the Hub takes for a repository, got {repository!r}")
    variants = _variants(bundles)
    for bundle in bundles:
        if len(sizes := bundle.manifest.model.sizes) > 1:
            have = ", ".join(str(size.image) for size in sizes)
            raise ResourcesError(
                f"expected one picture size in a repository, got {have} in {bundle.path}: convert for one"
            )
        if len(forms := bundle.forms()) > 1:
            have = "; ".join(map(str, forms))
            raise ResourcesError(
                f"expected a UNet of one form in a repository, got {have} in {bundle.path}: "
                "convert it without --unet-form"
            )
    models: dict[str, tuple[CompiledResource, ...]] = {}
    zips: dict[str, int] = {}
    with draft_folder(folder) as draft:
        for attention, bundle in variants.items():
            _link_packages(bundle, draft / attention / "packages")
            compiled = draft / attention / "compiled"
            models[attention] = write_resources(bundle, compiled, compile_package, progress=progress).models
            archive = f"{repository}_{attention}_compiled"
            progress(f"{archive}.zip")
            zips[f"{archive}.zip"] = _zip(compiled, draft / f"{archive}.zip", archive)
        card = model_card(repository, variants, zips, license_id=license_id)
        (draft / "README.md").write_text(card, encoding="utf-8")
        draft.rename(folder)
    return HubRepository(folder, models, zips)


def _variants(bundles: Sequence[Bundle]) -> dict[str, Bundle]:
    """The bundles by the name of their attention, as folders of such repositories have it."""
    found: dict[str, Bundle] = {}
    for bundle in bundles:
        attention = (bundle.only("denoiser").attention_implementation or "ORIGINAL").lower()
        if attention in found:
            raise ResourcesError(f"expected one bundle for each kind of attention, got two of {attention}")
        found[attention] = bundle
    identifiers = sorted({bundle.manifest.model.identifier for bundle in bundles})
    if len(identifiers) > 1:
        raise ResourcesError(f"expected bundles of one model, got {', '.join(identifiers)}")
    return found


def _link_packages(bundle: Bundle, folder: Path) -> None:
    for component in bundle.manifest.components:
        for package in component.packages:
            source = bundle.checked_folder(package)
            for relative in (path for path in bundle.manifest.files if path.startswith(f"{package}/")):
                target = folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(source.parent / Path(relative).relative_to(Path(package).parent), target)


def _zip(folder: Path, archive: Path, top: str) -> int:
    """All files below ``top/``; the same files give the same archive, byte for byte."""
    with zipfile.ZipFile(archive, "w") as made:
        for path in sorted(folder.rglob("*")):
            if not path.is_file():
                continue
            entry = zipfile.ZipInfo(f"{top}/{path.relative_to(folder).as_posix()}", _EPOCH)
            entry.compress_type = zipfile.ZIP_STORED if path.suffix == _STORED else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, made.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return archive.stat().st_size
