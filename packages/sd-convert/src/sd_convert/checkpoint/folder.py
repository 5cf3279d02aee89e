"""Checkpoints in diffusers format: a folder, or the part of a hub repository that is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sd_convert.errors import CheckpointError, IncompleteCheckpointError, NotACheckpointError
from sd_convert.facts.supported import check_pipeline

from .checkpoint import (
    CONFIG_FILES,
    INDEX,
    TOKENIZER_FILES,
    TOKENIZERS,
    Checkpoint,
    Request,
    config_file,
)
from .documents import read_json
from .hub import Repository
from .sources import Files
from .variants import choose_variant


def fetch_folder(repository: Repository, request: Request) -> Path:
    """Fetch small files first, then, knowing them, exactly one variant of the weights of each folder.

    Raises: see :func:`sd_convert.open_checkpoint`.
    """
    tokenizers = (f"{folder}/{name}" for folder in TOKENIZERS.values() for name in TOKENIZER_FILES)
    patterns = [*_config_files(request).values(), *tokenizers]
    if repository.offline:
        return repository.fetch(patterns)
    files = repository.files()
    if INDEX not in files:
        raise NotACheckpointError(f"{repository.name}: expected {INDEX} in the repository, got none")
    root = repository.fetch([*patterns, *(file for file in files if ".safetensors.index" in file)])
    wanted: list[str] = []
    for folder in dict.fromkeys(_networks(root, repository.name, request).values()):
        names = [file.removeprefix(f"{folder}/") for file in files if file.startswith(f"{folder}/")]
        _, name = choose_variant(names, variant=request.variant, where=f"{repository.name}/{folder}")
        wanted += [f"{folder}/{name}" for name in weight_names(root / folder, name)]
    return repository.fetch([*patterns, *wanted])


def read_folder(root: Path, name: str, request: Request, *, revision: str | None = None) -> Checkpoint:
    """The checkpoint in ``root``, with one variant of the weights of each component.

    Raises: see :func:`sd_convert.open_checkpoint`.
    """
    networks = _networks(root, name, request)
    sources: dict[str, Files] = {}
    variants: dict[str, str] = {}
    for folder in dict.fromkeys(networks.values()):
        names = _file_names(root, folder)
        variants[folder], file = choose_variant(names, variant=request.variant, where=str(root / folder))
        sources[folder] = Files(tuple(root / folder / name for name in weight_names(root / folder, file)))
        sources[folder].open()  # a truncated file is better said now than after an hour
    scheduler = root / CONFIG_FILES["scheduler"]
    return Checkpoint(
        name=name,
        folder=root,
        revision=revision,
        networks=networks,
        configs={
            folder: read_json(root / file)
            for folder, file in _config_files(request).items()
            if (root / file).is_file()
        },
        tokenizers={
            folder: files for folder in TOKENIZERS.values() if (files := tokenizer_files(root / folder))
        },
        scheduler_file=scheduler if scheduler.is_file() else None,
        sources=sources,
        variants=variants,
    )


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """The files of a tokenizer that are in ``folder``."""
    return tuple(path for file in TOKENIZER_FILES if (path := folder / file).is_file())


def check_link(file: Path) -> None:
    """Refuse to copy what a link in a downloaded folder leads to outside of it.

    Snapshots in the hub's cache are made of links, into the ``blobs`` beside them.

    Raises:
        CheckpointError: it leads elsewhere.
    """
    home, target = file.parent.parent.resolve(), file.resolve()  # CHECKPOINT/tokenizer/vocab.json
    blobs = home.parent.parent / "blobs"
    is_cached = home.parent.name == "snapshots" and target.is_relative_to(blobs)
    if not (target.is_relative_to(home) or is_cached):
        raise CheckpointError(
            f"{file}: expected a file of the checkpoint, got a link that leads out of it; copy the file there"
        )


def _config_files(request: Request) -> dict[str, str]:
    return CONFIG_FILES | {folder: config_file(folder) for folder in request.folders.values()}


def _networks(root: Path, name: str, request: Request) -> dict[str, str]:
    """Where those asked for are; refuse a folder that is no checkpoint, or of another kind of pipeline."""
    if not (root / INDEX).is_file():
        raise NotACheckpointError(
            f"{root}: expected a checkpoint folder in diffusers format, got a folder without {INDEX}"
        )
    index = read_json(root / INDEX)
    check_pipeline(index, where=f"{name}/{INDEX}")
    listed = [component for component, folder in request.folders.items() if _is_listed(index.get(folder))]
    for component in request.components or ():
        if component not in listed:
            raise IncompleteCheckpointError(
                f"{name}/{INDEX}: expected {request.folders[component]!r} for {component}, "
                f"got {', '.join(listed) or 'none'}"
            )
    return {component: folder for component, folder in request.chosen().items() if component in listed}


def _is_listed(entry: object) -> bool:
    """``[library, class]`` in model_index.json; ``[null, null]`` says that the pipeline goes without."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def _file_names(root: Path, folder: str) -> list[str]:
    if not (root / folder).is_dir():
        raise IncompleteCheckpointError(
            f"{root}: {INDEX} lists {folder!r}, expected a folder of that name, got none; download the "
            "checkpoint again, or ask only for the components that are there"
        )
    partial = (
        root / ".cache" / "huggingface" / "download" / folder
    )  # where the hub's client keeps unfinished ones
    return [path.name for place in (root / folder, partial) if place.is_dir() for path in place.iterdir()]


def weight_names(folder: Path, name: str) -> Sequence[str]:
    """The file itself, or the shards that an index names.

    Raises:
        IncompleteCheckpointError: the index names none.
        NotACheckpointError: it names one outside its folder.
    """
    if not name.endswith(".json"):
        return (name,)
    index = read_json(folder / name)
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise IncompleteCheckpointError(
            f"{folder / name}: expected a weight_map, got none; download it again"
        )
    names = sorted(set(map(str, shards.values())))
    for shard in names:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise NotACheckpointError(f"{folder / name}: expected shards in the same folder, got {shard!r}")
    return names
