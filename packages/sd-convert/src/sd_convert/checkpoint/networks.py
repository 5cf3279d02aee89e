"""Networks from elsewhere than the checkpoint that they are converted with: ControlNets, adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from sd_convert.errors import OptionsError

from .checkpoint import Checkpoint, Config
from .hub import Hub, is_offline, is_repository_id
from .network_folder import fetch_network, read_network_folder
from .opening import find_file, split_hub_file
from .sources import Source

#: A single file and the config of the checkpoint's UNet -> config and weights under diffusers' names.
ReadFile: TypeAlias = Callable[[Path, Config], tuple[Config, Source]]


@dataclass(frozen=True, slots=True)
class SeparateNetwork:
    """One network beside a checkpoint.

    ``name``: hub id, or the name of the file or folder; never a path. ``variant`` is that of the weights.
    """

    name: str
    config: Config
    source: Source
    variant: str


def open_network(
    source: str | Path,
    checkpoint: Checkpoint,
    *,
    folder: str,
    what: str,
    read_file: ReadFile,
    variant: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> SeparateNetwork:
    """A network in diffusers' format (folder or hub id, itself or in ``folder``), or in a single file.

    ``what`` it is to be, with its article, for errors; ``read_file`` is asked where there is no config, and
    gets that of the UNet of ``checkpoint``. ``variant`` is for folders.

    Raises:
        CheckpointError: one of its subclasses, see ``sd_convert.errors``.
    """
    path = Path(source).expanduser()
    hub = Hub(token, Path(cache_dir) if cache_dir else None, local_files_only or is_offline())
    if path.is_dir():
        found = read_network_folder(path, folder, what=what, variant=variant)
        return SeparateNetwork(path.resolve().name, *found)
    if not path.exists() and is_repository_id(str(source)) and not split_hub_file(str(source)):
        root = fetch_network(hub.repository(str(source)), folder, variant=variant)
        return SeparateNetwork(str(source), *read_network_folder(root, folder, what=what, variant=variant))
    file = find_file(source, hub, ())
    config, weights = read_file(file, checkpoint.config("unet"))
    weights.open()
    return SeparateNetwork(file.stem if path.is_file() else str(source), config, weights, "")


def with_networks(checkpoint: Checkpoint, networks: Mapping[str, SeparateNetwork]) -> Checkpoint:
    """``checkpoint`` with more networks, by the folder that their kinds name, which is also their component.

    Raises:
        OptionsError: it has a component of that name.
    """
    for folder in networks:
        if folder in checkpoint.networks or folder in checkpoint.configs:
            raise OptionsError(
                f"components: expected names that {checkpoint.name} does not have, got {folder!r}"
            )
    named = {folder: network.name for folder, network in networks.items()}
    return replace(
        checkpoint,
        networks={**checkpoint.networks, **{folder: folder for folder in networks}},
        configs={**checkpoint.configs, **{folder: n.config for folder, n in networks.items()}},
        sources={**checkpoint.sources, **{folder: n.source for folder, n in networks.items()}},
        variants={**checkpoint.variants, **{folder: n.variant for folder, n in networks.items()}},
        merged=replace(checkpoint.merged, networks={**checkpoint.merged.networks, **named}),
    )
