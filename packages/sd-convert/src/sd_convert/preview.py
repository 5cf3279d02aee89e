"""A tiny VAE beside a checkpoint, whose decoder draws previews."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint.checkpoint import Checkpoint, Config
from .checkpoint.custom_vae import read_vae_file
from .checkpoint.networks import open_network, with_networks
from .checkpoint.sources import Source
from .components import PREVIEW_DECODER, ComponentKind


def with_preview_vae(
    checkpoint: Checkpoint, source: str | Path, **options: Any
) -> tuple[Checkpoint, tuple[ComponentKind, ...]]:
    """``checkpoint`` with the decoder of a tiny VAE (TAESD) for previews, and the kind that converts it.

    ``source``: a folder in diffusers' format, a hub id (``madebyollin/taesd``) or a ``.safetensors`` file.
    ``options``: ``variant``, ``token``, ``cache_dir`` and ``local_files_only``, as of ``open_checkpoint``.

    Example:
        >>> checkpoint, kinds = with_preview_vae(open_checkpoint("model"), "taesd")  # doctest: +SKIP
        >>> convert(checkpoint, "bundle", kinds=(*KINDS, *kinds))  # doctest: +SKIP

    Raises:
        CheckpointError: there is no such VAE. One of another kind, or of other latents, is an
            UnsupportedArchitectureError when it is converted.
    """
    asked = {"folder": "vae", "what": "a tiny VAE", "read_file": _read_file, **options}
    network = open_network(source, checkpoint, **asked)
    return with_networks(checkpoint, {PREVIEW_DECODER.folder: network}), (PREVIEW_DECODER,)


def _read_file(file: Path, _: Mapping[str, Any]) -> tuple[Config, Source]:
    config, source, _variant = read_vae_file(file, None)
    return config, source
