"""A network's folder in diffusers' format: by itself or inside a checkpoint's, here or on the hub."""

from __future__ import annotations

from pathlib import Path

from sd_convert.errors import NotACheckpointError

from .checkpoint import Config
from .documents import read_json
from .folder import weight_names
from .hub import Repository
from .sources import Files, Source
from .variants import choose_variant


def fetch_network(repository: Repository, folder: str, *, variant: str | None = None) -> Path:
    """Fetch a network that a repository is, or that it has in ``folder``: its config and one variant.

    Errors as :func:`sd_convert.open_checkpoint`.
    """
    if repository.offline:
        root = repository.fetch(["config.json", f"{folder}/config.json"])
        return root / folder if (root / folder).is_dir() else root
    files = repository.files()
    prefix = f"{folder}/" if f"{folder}/config.json" in files else ""
    names = [file.removeprefix(prefix) for file in files if file.startswith(prefix)]
    indices = [f"{prefix}{name}" for name in names if ".safetensors.index" in name and "/" not in name]
    root = repository.fetch([f"{prefix}config.json", *indices])
    _, name = choose_variant(names, variant=variant, where=f"{repository.name}/{prefix}")
    wanted = [f"{prefix}{file}" for file in weight_names(root / prefix, name)]
    return repository.fetch([f"{prefix}config.json", *indices, *wanted]) / prefix


def read_network_folder(
    root: Path, folder: str, *, what: str, variant: str | None = None
) -> tuple[Config, Source, str]:
    """Config, weights and their variant of a network's folder ``root``, or of ``folder`` in it.

    ``what`` it is to be, with its article. Errors as :func:`sd_convert.open_checkpoint`.
    """
    here = root / folder if (root / folder / "config.json").is_file() else root
    if not (here / "config.json").is_file():
        raise NotACheckpointError(
            f"{root}: expected the config.json of {what}, there or in {folder}, got none"
        )
    names = [path.name for path in here.iterdir()]
    chosen, name = choose_variant(names, variant=variant, where=str(here))
    source = Files(tuple(here / file for file in weight_names(here, name)))
    source.open()  # a truncated file is better said now than after an hour
    return read_json(here / "config.json"), source, chosen
