"""A bundle of packages that another tool made: the files themselves, linked, and what they lack."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from sd_bundle import (
    Bundle,
    BundleComponent,
    BundleError,
    Chunk,
    Draft,
    ModelFacts,
    PortSpec,
    Provenance,
    Role,
    Variant,
    new_bundle,
    open_bundle,
)
from sd_tokenize import ClipTokenizer, TokenizerError

from sd_runtime.foreign.facts import SCHEDULER, Unstated, model_facts, scheduler_config, tokenizer_config
from sd_runtime.foreign.layout import Found, find_networks, is_foreign

if TYPE_CHECKING:
    from sd_mil import Description, Package, Port

_ROLES: Final[Mapping[str, Role]] = {
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder",
    "unet": "denoiser",
    "vae_decoder": "image_decoder",
    "vae_encoder": "image_encoder",
    "safety_checker": "safety_checker",
}
_SIZED: Final = ("denoiser", "image_decoder", "image_encoder")
_DTYPES: Final = ("float16", "float32", "int32")
#: Networks that stand in for a unet where there is none, and are left where there is.
_EXTRA: Final = ("control-unet", "refiner")


@dataclass(frozen=True, slots=True)
class Adopted:
    """A bundle that was made of a foreign folder; ``left`` are its networks that are not in the bundle."""

    bundle: Path
    facts: ModelFacts
    left: tuple[str, ...]


def adopt(
    folder: str | Path, out: str | Path, unstated: Unstated | None = None, *, overwrite: bool = False
) -> Adopted:
    """Make a bundle of the packages or compiled models in ``folder``.

    Their files are linked (hard links) where the file system can, else copied; nothing in ``folder`` is
    changed. A ControlNet's UNet stands in for the plain one where there is none, and draws with zero
    residuals. A refiner beside a base is a model of its own, and is left.

    Raises:
        BundleError: no such networks, or something has to be told (``unstated``): what, and how.
        OutputExistsError: there is something at ``out``.
        SdMilError: a package is malformed or of another kind.
    """
    from sd_mil import read_package

    told = unstated or Unstated()
    found = find_networks(folder)
    networks, left = _chosen(found)
    packages = {name: tuple(read_package(path) for path in paths) for name, paths in networks.items()}
    facts = model_facts(found.model, {name: _whole(one) for name, one in packages.items()}, told)
    tokenizer = _tokenizer_folder(found, told)
    provenance = Provenance.now(found.model, tools={"sd-runtime": _own_version()})
    with new_bundle(out, facts, provenance=provenance, overwrite=overwrite) as draft:
        for name, parts in packages.items():
            component = _component(name, parts, networks[name], facts)
            for place, source in zip(draft.add_packages(component), networks[name], strict=True):
                _link_tree(source, place)
        _add_scheduler(draft, facts, told)
        for encoding in facts.text_encoders:
            config = tokenizer_config(encoding.component, facts.family)
            _add_tokenizer(draft, tokenizer, encoding.tokenizer, config)
    return Adopted(Path(out), facts, left)


def open_any(path: str | Path, unstated: Unstated | None = None) -> Bundle:
    """The bundle at ``path``; of a foreign folder, one that is made of it in this user's cache, by links.

    A folder that changed is made anew.

    Raises:
        BundleError: neither; or as :func:`adopt`.
    """
    folder = Path(path)
    if (folder / "manifest.json").exists() or not is_foreign(folder):
        return open_bundle(folder)
    place = _cache_folder() / _key(find_networks(folder), unstated or Unstated())
    if not place.exists():
        try:
            adopt(folder, place, unstated)
        except BundleError as error:
            raise BundleError(
                f"{error}; sdc import makes a bundle of this folder and what is told"
            ) from error
    return open_bundle(place)


def _own_version() -> str:
    from importlib.metadata import version  # brings email and socket

    return version("sd-runtime")


def _cache_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("sdc", appauthor=False) / "adopted"


def _key(found: Found, unstated: Unstated) -> str:
    """What the bundle depends on: the files as the file system knows them, and what was told."""
    told = {key: str(value) for key, value in dataclasses.asdict(unstated).items()}
    files = []
    for path in sorted(one for paths in found.networks.values() for one in paths):
        for file in _files(path):
            status = file.stat()
            files.append([str(file.resolve()), status.st_size, status.st_mtime_ns, status.st_ino])
    text = json.dumps([told, files, _own_version()])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _chosen(found: Found) -> tuple[dict[str, tuple[Path, ...]], tuple[str, ...]]:
    """The networks of the bundle by their names there, and those that are left."""
    networks = dict(found.networks)
    left = [name for name in _EXTRA if name in networks]
    if "unet" not in networks:
        stand_in = next((name for name in _EXTRA if name in networks), None)
        if stand_in is None:
            raise BundleError(
                f"{found.folder}: expected a unet among the networks, got {', '.join(networks)}"
            )
        networks["unet"] = networks[stand_in]
        left.remove(stand_in)
    return {name: paths for name, paths in networks.items() if name in _ROLES}, tuple(left)


def _whole(parts: tuple[Package, ...]) -> Description:
    """The description of a network as if its chunks were one."""
    from sd_mil import Description

    if len(parts) == 1:
        return parts[0].description
    returned = {port.name for part in parts[:-1] for port in part.description.outputs}
    inputs: dict[str, Port] = {}
    for part in parts:
        for port in part.description.inputs:
            if port.name not in returned:
                inputs.setdefault(port.name, port)
    metadata = parts[0].description.user_defined
    return Description(tuple(inputs.values()), parts[-1].description.outputs, user_defined=metadata)


def _component(
    name: str, parts: tuple[Package, ...], paths: tuple[Path, ...], facts: ModelFacts
) -> BundleComponent:
    role = _ROLES[name]
    chunks = tuple(
        Chunk(path.name, None, _ports(part.description.inputs, path), _ports(part.description.outputs, path))
        for part, path in zip(parts, paths, strict=True)
    )
    is_split = any(operation.type == "einsum" for part in parts for operation in part.program.operations())
    attention = ("SPLIT_EINSUM" if is_split else "ORIGINAL") if role == "denoiser" else None
    size = facts.image if role in _SIZED else None
    return BundleComponent(
        name=name,
        role=role,
        variants=(Variant(size, chunks),),
        attention_implementation=cast(Any, attention),
        compression=None,
        compute_unit="CPU_AND_NE" if is_split else "CPU_AND_GPU" if role == "denoiser" else "ALL",
        deployment_target=_oldest_mac(parts[0].specification_version),
    )


def _oldest_mac(specification: int) -> str:
    """The first macOS that reads files of that version."""
    from sd_mil.ir import TARGETS

    names = (name for name, one in TARGETS.items() if one.specification == specification)
    return next((name for name in names if name.startswith("macOS")), "macOS13")


def _ports(ports: tuple[Port, ...], path: Path) -> tuple[PortSpec, ...]:
    specs = []
    for port in ports:
        if port.dtype not in _DTYPES or None in port.shape or port.kind != "array":
            raise BundleError(f"{path.name}: expected arrays of known sizes, got the port {port}")
        specs.append(PortSpec(port.name, tuple(size or 0 for size in port.shape), cast(Any, port.dtype)))
    return tuple(specs)


def _tokenizer_folder(found: Found, told: Unstated) -> Path:
    if told.tokenizer is not None:
        return told.tokenizer
    if found.has_tokenizer:
        return found.folder
    raise BundleError(
        f"{found.folder}: expected vocab.json and merges.txt beside the networks, got none: say where they "
        "are (--tokenizer), such as the tokenizer folder of the checkpoint"
    )


def _add_tokenizer(draft: Draft, source: Path, folder: str, config: Mapping[str, Any]) -> None:
    """The vocabulary; what a checkpoint's own config says counts more than what the family has."""
    for name in ("vocab.json", "merges.txt"):
        if not (source / name).is_file():
            raise BundleError(f"{source}: expected {name}, got none")
        draft.copy_file(source / name, f"{folder}/{name}")
    own = [name for name in ("tokenizer_config.json", "special_tokens_map.json") if (source / name).is_file()]
    for name in own if folder == "tokenizer" else ():
        draft.copy_file(source / name, f"{folder}/{name}")
    if not own or folder != "tokenizer":
        draft.add_file(f"{folder}/tokenizer_config.json", f"{json.dumps(config, indent=2)}\n".encode())
    try:
        ClipTokenizer.from_folder(draft.folder / folder)
    except TokenizerError as error:
        raise BundleError(str(error).replace(str(draft.folder / folder), str(source))) from error


def _add_scheduler(draft: Draft, facts: ModelFacts, told: Unstated) -> None:
    if told.scheduler is None:
        draft.add_file(SCHEDULER, f"{json.dumps(scheduler_config(facts), indent=2)}\n".encode())
    elif told.scheduler.is_file():
        draft.copy_file(told.scheduler, SCHEDULER)
    else:
        raise BundleError(f"expected a scheduler_config.json at {told.scheduler}, got none")


def _files(tree: Path) -> Iterator[Path]:
    """The files of a package. Links lead nowhere but within it, or to the blobs of the same hub cache.

    Raises:
        BundleError: a link to something else.
    """
    home = _home(tree)
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() and not (path.is_file() and path.resolve().is_relative_to(home)):
            raise BundleError(f"{path}: expected a file of the model, got a link out of it")
        if path.is_file():
            yield path


def _home(tree: Path) -> Path:
    """Where links of a package may lead: huggingface_hub keeps files in ``blobs``, beside ``snapshots``."""
    root = tree.resolve()
    return next((parent.parent for parent in root.parents if parent.name == "snapshots"), root)


def _link_tree(source: Path, place: Path) -> None:
    for file in _files(source):
        target = place / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.resolve(), target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, target)
