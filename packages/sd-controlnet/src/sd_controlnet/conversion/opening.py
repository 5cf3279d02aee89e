"""What a user names, as networks of a checkpoint and the kinds that convert them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sd_convert import (
    Checkpoint,
    ComponentKind,
    NotACheckpointError,
    Section,
    SeparateNetwork,
    open_network,
    read_controlnet_file,
    read_ip_adapter_file,
    read_t2i_adapter_file,
    with_image_attention,
    with_networks,
)

from sd_controlnet.errors import ControlNetError

from .controlnet import HINTS_KEY, MOST_HINTS, UNION, controlnet_kind
from .image_encoder import IMAGE_ENCODER, image_encoder_kind, image_encoder_place, seen
from .ip_adapter import completed, ip_adapter_kind
from .t2i_adapter import t2i_adapter_kind

_TEXT_WIDTH: Final = 1280  # diffusers' default


def with_controlnets(
    checkpoint: Checkpoint, sources: Sequence[str | Path], *, union_hints: int = 1, **options: Any
) -> tuple[Checkpoint, tuple[ComponentKind, ...]]:
    """``checkpoint`` with ControlNets beside its own networks, and the kinds that convert them.

    ``sources``: each a folder in diffusers' format, a hub id or a ``.safetensors`` file (diffusers' names or
    the original ones; of a union ControlNet, diffusers'). Their components are called by hub id, or by the
    name of the folder or file.
    ``options``: ``variant``, ``token``, ``cache_dir`` and ``local_files_only``, as of ``open_checkpoint``.

    ``union_hints``: how many hints a union ControlNet is given at once, up to 8; fewer cost as much.

    Example:
        >>> checkpoint, kinds = with_controlnets(open_checkpoint("model"), ["canny"])  # doctest: +SKIP
        >>> convert(checkpoint, "bundle", options, kinds=(*KINDS, *kinds))  # doctest: +SKIP

    Raises:
        sd_convert.CheckpointError: there is no such network, or it is no ControlNet.
        ControlNetError: two of one name, or several hints for ControlNets none of which is a union.
    """
    if not 1 <= union_hints <= MOST_HINTS:
        raise ControlNetError(f"expected 1 to {MOST_HINTS} hints of a union ControlNet, got {union_hints}")
    opened = {
        "folder": "controlnet",
        "what": "a ControlNet",
        "read_file": read_controlnet_file,
        **options,
    }
    networks = {network.name: network for network in _opened(checkpoint, sources, opened)}
    if union_hints > 1:
        unions = {name: each for name, each in networks.items() if each.config.get("_class_name") == UNION}
        if not unions:
            raise ControlNetError(
                f"expected a union ControlNet for {union_hints} hints at once, got "
                f"{', '.join(networks) or 'none'}"
            )
        for name, network in unions.items():
            networks[name] = replace(network, config={**network.config, HINTS_KEY: union_hints})
    return with_networks(checkpoint, networks), tuple(map(controlnet_kind, networks))


def with_t2i_adapters(
    checkpoint: Checkpoint, sources: Sequence[str | Path], **options: Any
) -> tuple[Checkpoint, tuple[ComponentKind, ...]]:
    """As :func:`with_controlnets`, for T2I-Adapters."""
    opened = {"folder": "adapter", "what": "a T2I-Adapter", "read_file": read_t2i_adapter_file, **options}
    return _with(checkpoint, sources, t2i_adapter_kind, opened)


def with_ip_adapters(
    checkpoint: Checkpoint,
    sources: Sequence[str | Path],
    image_encoder: str | Path | None = None,
    **options: Any,
) -> tuple[Checkpoint, tuple[ComponentKind, ...]]:
    """``checkpoint`` with IP-Adapters in its UNet, and the kinds of their projections and image encoder.

    ``sources``: each a ``.safetensors`` file, or one on the hub (``h94/IP-Adapter/models/NAME.safetensors``).
    ``image_encoder``: the vision model that all of them look through, a folder, a hub id, or a folder of a
    hub id (``h94/IP-Adapter/models/image_encoder``); by default ``image_encoder`` beside the first file, or
    in the checkpoint. ``options`` as of :func:`with_controlnets`.

    Raises:
        sd_convert.CheckpointError: there is no such network, or it is of another kind.
        BaseModelError: an adapter that was made for another UNet, or beside another image encoder.
        ControlNetError: two of one name, or no image encoder.
    """
    if not sources:
        return checkpoint, ()
    place, folder = image_encoder_place(checkpoint, sources[0], image_encoder)
    what = {"what": "an image encoder", "read_file": _refused_file, **options}
    encoder = open_network(place, checkpoint, folder=folder, **what)
    sizes = seen(Section(encoder.name, encoder.config))
    widths = checkpoint.config("unet").get("cross_attention_dim", _TEXT_WIDTH)
    text_width = widths[0] if isinstance(widths, list | tuple) and widths else widths
    asked = {"folder": "ip_adapter", "what": "an IP-Adapter", "read_file": read_ip_adapter_file, **options}
    adapters = {}
    for number, network in enumerate(_opened(checkpoint, sources, asked)):
        config = completed(network.config, network.name, number, encoder=sizes, text_width=text_width)
        adapters[network.name] = replace(network, config=config)
    attentions = [(each.source.files[0], each.config["tokens"]) for each in adapters.values()]
    attending = with_image_attention(checkpoint, attentions)
    kinds = (image_encoder_kind(), *map(ip_adapter_kind, adapters))
    return with_networks(attending, {IMAGE_ENCODER: encoder, **adapters}), kinds


def _refused_file(file: Path, _: Mapping[str, Any]) -> Any:
    """Refuse with NotACheckpointError: a config has to be beside the weights."""
    raise NotACheckpointError(f"{file}: expected the folder of an image encoder or its hub id, got a file")


def _with(
    checkpoint: Checkpoint,
    sources: Sequence[str | Path],
    kind: Callable[[str], ComponentKind],
    options: dict[str, Any],
) -> tuple[Checkpoint, tuple[ComponentKind, ...]]:
    networks = {network.name: network for network in _opened(checkpoint, sources, options)}
    return with_networks(checkpoint, networks), tuple(map(kind, networks))


def _opened(
    checkpoint: Checkpoint, sources: Sequence[str | Path], options: dict[str, Any]
) -> Iterator[SeparateNetwork]:
    names = set()
    for source in sources:
        network = open_network(source, checkpoint, **options)
        if network.name in names:
            raise ControlNetError(
                f"expected ControlNets and adapters of different names, got two called {network.name!r}: "
                "rename a folder or file"
            )
        names.add(network.name)
        yield network
