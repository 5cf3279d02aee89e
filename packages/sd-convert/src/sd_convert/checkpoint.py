"""A checkpoint in diffusers format: its configs, and weights that stay on disk until asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from .architecture import check_pipeline
from .errors import (
    CheckpointNotFoundError,
    IncompleteCheckpointError,
    NotACheckpointError,
    UnsafeWeightsError,
)
from .hub import Repository, is_offline, is_repository_id
from .options import COMPONENTS, check_components
from .variants import choose_variant
from .weights import MappedWeights, open_weights

Config: TypeAlias = Mapping[str, Any]

#: The folder of a checkpoint that holds a component's network.
FOLDERS: Final = {
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder_2",
    "unet": "unet",
    "vae_decoder": "vae",
    "vae_encoder": "vae",
    "safety_checker": "safety_checker",
}

_INDEX: Final = "model_index.json"
_CONFIG_FILES: Final = {
    "model_index": _INDEX,
    "text_encoder": "text_encoder/config.json",
    "text_encoder_2": "text_encoder_2/config.json",
    "unet": "unet/config.json",
    "vae": "vae/config.json",
    "safety_checker": "safety_checker/config.json",
    "feature_extractor": "feature_extractor/preprocessor_config.json",
    "scheduler": "scheduler/scheduler_config.json",
}

#: The folder of the tokenizer of each text encoder.
TOKENIZERS: Final = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
_TOKENIZER_FILES: Final = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_LARGEST_JSON: Final = (
    64 * 2**20
)  # bytes; the largest there is, a vocabulary or an index of shards, has a few


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a conversion reads.

    ``name`` is the hub id or the folder's name, ``revision`` the hub's commit. ``components`` are those
    of ``sd_convert.COMPONENTS`` that were asked for. ``configs`` is by folder (``text_encoder``, ``unet``,
    ``vae``, ``scheduler``, ...) and ``model_index``, and has those that exist. ``tokenizers`` has the files
    of ``tokenizer`` and ``tokenizer_2``, as far as there are any. ``weight_files`` and ``variants`` are by
    folder, for the folders of the components only.
    """

    name: str
    folder: Path
    revision: str | None
    components: tuple[str, ...]
    configs: Mapping[str, Config]
    tokenizers: Mapping[str, tuple[Path, ...]]
    scheduler_file: Path | None
    weight_files: Mapping[str, tuple[Path, ...]]
    variants: Mapping[str, str]

    @classmethod
    def open(
        cls,
        source: str | Path,
        *,
        components: Collection[str] | None = None,
        revision: str | None = None,
        token: str | None = None,
        variant: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Checkpoint:
        """Open a diffusers folder, or fetch the needed files of a hub repository (``organisation/name``).

        ``components``: only these need to be there, and only theirs are fetched; ``None`` is all that the
        checkpoint lists. ``variant``: which weights (``"fp16"``; ``""`` for the unnamed ones); ``None`` takes
        fp16, else the unnamed ones, else the only ones. The rest is for the hub alone.

        Raises:
            CheckpointError: one of its subclasses, see ``sd_convert.errors``.
            UnsupportedArchitectureError: another kind of pipeline than Stable Diffusion 1, 2 and XL.
            OptionsError: an unknown component.
        """
        if components is not None:
            check_components(tuple(components))
        folder = _local_folder(source)
        if folder is not None:
            return _read(cls, folder, folder.resolve().name, components, variant, None)
        cache = Path(cache_dir) if cache_dir is not None else None
        offline = local_files_only or is_offline()
        repository = Repository(str(source), revision, token, cache, offline)
        folder = _fetch(repository, components, variant)
        return _read(cls, folder, repository.name, components, variant, folder.name)

    def config(self, folder: str) -> Config:
        """The config of a folder (``unet``, ``scheduler``, ...), or ``model_index``.

        Raises:
            IncompleteCheckpointError: the checkpoint has none.
        """
        if folder not in self.configs:
            raise IncompleteCheckpointError(
                f"{self.folder}: expected {_CONFIG_FILES[folder]}, got none; download the checkpoint again"
            )
        return self.configs[folder]

    def weights(self, component: str) -> MappedWeights:
        """The tensors of the component's folder, mapped (both VAE components share one folder).

        Raises:
            IncompleteCheckpointError: the component was not asked for, or a file is truncated.
            CheckpointError: a file is malformed.
        """
        folder = FOLDERS[component]
        if folder not in self.weight_files:
            raise IncompleteCheckpointError(
                f"{self.name}: expected the weights of {component}, got {', '.join(self.components)} opened"
            )
        return open_weights(self.weight_files[folder])


def _local_folder(source: str | Path) -> Path | None:
    """The folder that ``source`` names, or None if it can only be a repository of the hub."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise _refuse_file(path)
    if isinstance(source, Path) or not is_repository_id(source):
        raise CheckpointNotFoundError(
            f"{source}: expected a checkpoint folder or a hub id (organisation/name), got nothing there"
        )
    return None


def _refuse_file(path: Path) -> Exception:
    if path.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        return UnsafeWeightsError(
            f"{path}: expected a checkpoint folder in diffusers format, got a pickle, which runs code when "
            "it is read; convert it to diffusers format in a place you trust"
        )
    return NotACheckpointError(f"{path}: expected a checkpoint folder in diffusers format, got a single file")


def _fetch(repository: Repository, components: Collection[str] | None, variant: str | None) -> Path:
    """Fetch small files first, then, knowing them, exactly one variant of the weights of each folder."""
    tokenizers = (f"{folder}/{name}" for folder in TOKENIZERS.values() for name in _TOKENIZER_FILES)
    patterns = [*_CONFIG_FILES.values(), *tokenizers]
    if repository.offline:
        return repository.fetch(patterns)
    files = repository.files()
    if _INDEX not in files:
        raise NotACheckpointError(f"{repository.name}: expected {_INDEX} in the repository, got none")
    root = repository.fetch([*patterns, *(file for file in files if ".safetensors.index" in file)])
    wanted: list[str] = []
    for folder in _folders(_components(root, repository.name, components)):
        names = [file.removeprefix(f"{folder}/") for file in files if file.startswith(f"{folder}/")]
        _, name = choose_variant(names, variant=variant, where=f"{repository.name}/{folder}")
        wanted += [f"{folder}/{name}" for name in _weight_names(root / folder, name)]
    return repository.fetch([*patterns, *wanted])


def _read(
    cls: type[Checkpoint],
    root: Path,
    name: str,
    components: Collection[str] | None,
    variant: str | None,
    revision: str | None,
) -> Checkpoint:
    chosen = _components(root, name, components)
    weight_files: dict[str, tuple[Path, ...]] = {}
    variants: dict[str, str] = {}
    for folder in _folders(chosen):
        names = _file_names(root, folder)
        variants[folder], file = choose_variant(names, variant=variant, where=str(root / folder))
        weight_files[folder] = tuple(root / folder / name for name in _weight_names(root / folder, file))
        open_weights(weight_files[folder])  # a truncated file is better said now than after an hour
    scheduler = root / _CONFIG_FILES["scheduler"]
    return cls(
        name=name,
        folder=root,
        revision=revision,
        components=chosen,
        configs={
            key: _read_json(root / file) for key, file in _CONFIG_FILES.items() if (root / file).is_file()
        },
        tokenizers={
            folder: files for folder in TOKENIZERS.values() if (files := _tokenizer_files(root, folder))
        },
        scheduler_file=scheduler if scheduler.is_file() else None,
        weight_files=weight_files,
        variants=variants,
    )


def _tokenizer_files(root: Path, folder: str) -> tuple[Path, ...]:
    return tuple(path for file in _TOKENIZER_FILES if (path := root / folder / file).is_file())


def _components(root: Path, name: str, asked: Collection[str] | None) -> tuple[str, ...]:
    """Those asked for, in the usual order; refuse a folder that is none, or of another kind of pipeline."""
    if not (root / _INDEX).is_file():
        raise NotACheckpointError(
            f"{root}: expected a checkpoint folder in diffusers format, got a folder without {_INDEX}"
        )
    index = _read_json(root / _INDEX)
    check_pipeline(index, where=f"{name}/{_INDEX}")
    listed = [component for component in COMPONENTS if _is_listed(index.get(FOLDERS[component]))]
    for component in asked or ():
        if component not in listed:
            raise IncompleteCheckpointError(
                f"{name}/{_INDEX}: expected {FOLDERS[component]!r} for {component}, "
                f"got {', '.join(listed) or 'none'}"
            )
    return tuple(component for component in listed if asked is None or component in asked)


def _is_listed(entry: object) -> bool:
    """``[library, class]`` in model_index.json; ``[null, null]`` says that the pipeline goes without."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def _folders(components: Collection[str]) -> list[str]:
    return list(dict.fromkeys(FOLDERS[component] for component in components))


def _file_names(root: Path, folder: str) -> list[str]:
    if not (root / folder).is_dir():
        raise IncompleteCheckpointError(
            f"{root}: {_INDEX} lists {folder!r}, expected a folder of that name, got none; download the "
            "checkpoint again, or ask only for the components that are there"
        )
    partial = (
        root / ".cache" / "huggingface" / "download" / folder
    )  # where the hub's client keeps unfinished ones
    return [path.name for place in (root / folder, partial) if place.is_dir() for path in place.iterdir()]


def _weight_names(folder: Path, name: str) -> Sequence[str]:
    """The file itself, or the shards that an index names."""
    if not name.endswith(".json"):
        return (name,)
    index = _read_json(folder / name)
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


def _read_json(path: Path) -> dict[str, Any]:
    """A small JSON object of a checkpoint."""
    if path.stat().st_size > _LARGEST_JSON:
        raise NotACheckpointError(
            f"{path}: expected at most {_LARGEST_JSON} bytes, got {path.stat().st_size}"
        )
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise IncompleteCheckpointError(
            f"{path}: expected JSON, got {error}; download it again (`git lfs pull` if it is an lfs pointer)"
        ) from error
    if not isinstance(document, dict):
        raise NotACheckpointError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document
