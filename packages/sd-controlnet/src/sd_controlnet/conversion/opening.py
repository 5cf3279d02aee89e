"""What a user names, as networks of a checkpoint and the kinds that convert them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sd_convert import Checkpoint, ComponentKind, open_network, read_controlnet_file, with_networks

from sd_controlnet.errors import ControlNetError

from .controlnet import controlnet_kind
from .t2i_adapter import read_adapter_file, t2i_adapter_kind


def with_controlnets(
    checkpoint: Checkpoint, sources: Sequence[str | Path], **options: Any
) -> tuple[Checkpoint, tuple[ComponentKind, ...]]:
    """``checkpoint`` with ControlNets beside its own networks, and the kinds that convert them.

    ``sources``: each a folder in diffusers' format, a hub id or a ``.safetensors`` file (diffusers' names or
    the original ones). Their components are called by hub id, or by the name of the folder or file.
    ``options``: ``variant``, ``token``, ``cache_dir`` and ``local_files_only``, as of ``open_checkpoint``.

    Example:
        >>> checkpoint, kinds = with_controlnets(open_checkpoint("model"), ["canny"])  # doctest: +SKIP
        >>> convert(checkpoint, "bundle", options, kinds=(*KINDS, *kinds))  # doctest: +SKIP

    Raises:
        sd_convert.CheckpointError: there is no such network, or it is no ControlNet.
        ControlNetError: two of one name.
    """
    opened = {
        "folder": "controlnet",
        "what": "a ControlNet",
        "read_file": read_controlnet_file,
        **options,
    }
    return _with(checkpoint, sources, controlnet_kind, opened)


def with_t2i_adapters(
    checkpoint: Checkpoint, sources: Sequence[str | Path], **options: Any
) -> tuple[Checkpoint, tuple[ComponentKind, ...]]:
    """As :func:`with_controlnets`, for T2I-Adapters."""
    opened = {"folder": "adapter", "what": "a T2I-Adapter", "read_file": read_adapter_file, **options}
    return _with(checkpoint, sources, t2i_adapter_kind, opened)


def _with(
    checkpoint: Checkpoint,
    sources: Sequence[str | Path],
    kind: Callable[[str], ComponentKind],
    options: dict[str, Any],
) -> tuple[Checkpoint, tuple[ComponentKind, ...]]:
    networks = {}
    for source in sources:
        network = open_network(source, checkpoint, **options)
        if network.name in networks:
            raise ControlNetError(
                f"expected ControlNets and adapters of different names, got two called {network.name!r}: "
                "rename a folder or file"
            )
        networks[network.name] = network
    return with_networks(checkpoint, networks), tuple(map(kind, networks))
