"""A T2I-Adapter in one ``.safetensors`` file: in the original layout, or in diffusers' without its config.

Source: TencentARC/T2I-Adapter, ldm/modules/encoders/adapter.py (``Adapter``, ``Adapter_light``);
``convert_adapter`` and ``convert_light_adapter`` in diffusers' scripts/convert_original_t2i_adapter.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sd_convert.checkpoint.checkpoint import Config
from sd_convert.checkpoint.sources import Source
from sd_convert.checkpoint.tensors import TensorEntry
from sd_convert.checkpoint.weights import LazyWeights, open_weights
from sd_convert.errors import NotACheckpointError, UnsupportedArchitectureError

_PREFIX: Final = "adapter."
#: Of the full kind: residual blocks are numbered through, two for each resolution.
_FULL: Final = re.compile(r"body\.(\d+)\.(block1|block2|in_conv)\.(weight|bias)", re.ASCII)
_PER_LEVEL: Final = 2
_LIGHT: Final = re.compile(r"body\.(\d+)\.body\.(\d+)\.(.+)", re.ASCII)
_RESNET: Final = re.compile(r"adapter\.body\.(\d+)\.resnets\.(\d+)\.block1\.weight", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Adapter:
    """An adapter under diffusers' names."""

    file: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """That one file."""
        return (self.file,)

    def open(self) -> LazyWeights:
        """Map the file and rename, see :class:`sd_convert.checkpoint.sources.Source`."""
        return LazyWeights(_renamed(open_weights([self.file]).entries))


def read_t2i_adapter_file(file: Path, unet: Config) -> tuple[Config, Source]:
    """Config and weights of the T2I-Adapter in ``file``; ``unet`` says whether it is one for SDXL.

    Raises:
        NotACheckpointError: there is no T2I-Adapter in it.
        UnsupportedArchitectureError: it is of another kind.
    """
    found = open_weights([file]).entries
    entries = _renamed(found)
    levels = _levels(entries)
    first = entries.get("adapter.conv_in.weight") or entries.get("adapter.body.0.in_conv.weight")
    if not levels or first is None or len(first.shape) != 4:
        raise NotACheckpointError(
            f"{file}: expected a T2I-Adapter (conv_in.weight, body.0.block1.weight), got "
            f"{', '.join(list(found)[:3]) or 'no tensors'}"
        )
    if strided := [name for name in found if ".down_opt.op." in name or ".skep." in name]:
        raise UnsupportedArchitectureError(
            f"{file}: expected a T2I-Adapter that diffusers has, which halves by means, got {strided[0]}"
        )
    is_light = "adapter.conv_in.weight" not in entries
    is_xl = unet.get("addition_embed_type") == "text_time"
    channels, factor = _unshuffled(first.shape[1], where=str(file))
    return {
        "_class_name": "T2IAdapter",
        "adapter_type": "light_adapter" if is_light else "full_adapter_xl" if is_xl else "full_adapter",
        "in_channels": channels,
        "channels": _widths(entries, len(levels), is_light=is_light),
        "num_res_blocks": levels[0],
        "downscale_factor": factor,
    }, _Adapter(file)


def _renamed(entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Under diffusers' names, which begin with ``adapter.``."""
    if any(name.startswith(_PREFIX) for name in entries):
        return dict(entries)
    is_light = "conv_in.weight" not in entries
    return {_PREFIX + (_light(name) if is_light else _full(name)): entry for name, entry in entries.items()}


def _light(name: str) -> str:
    """The name of a light adapter's tensor there, without ``adapter.``."""
    match = _LIGHT.fullmatch(name)
    return f"body.{match[1]}.resnets.{match[2]}.{match[3]}" if match else name


def _full(name: str) -> str:
    """The same of a full one's, whose first residual block of a resolution has the convolution in front."""
    match = _FULL.fullmatch(name)
    if match is None:
        return name
    level, block = divmod(int(match[1]), _PER_LEVEL)
    inside = "" if match[2] == "in_conv" else f"resnets.{block}."
    return f"body.{level}.{inside}{match[2]}.{match[3]}"


def _levels(entries: Mapping[str, TensorEntry]) -> list[int]:
    """How many residual blocks each resolution has."""
    found = [match for name in entries if (match := _RESNET.fullmatch(name))]
    levels = 1 + max((int(match[1]) for match in found), default=-1)
    return [sum(int(match[1]) == level for match in found) for level in range(levels)]


def _widths(entries: Mapping[str, TensorEntry], levels: int, *, is_light: bool) -> list[int]:
    name = "adapter.body.{}.out_conv.weight" if is_light else "adapter.body.{}.resnets.0.block1.weight"
    widths = [entries[name.format(level)].shape[0] for level in range(levels)]
    return widths[:-1] if is_light else widths  # diffusers' light adapters have one level more than widths


def _unshuffled(width: int, *, where: str) -> tuple[int, int]:
    """Channels of a picture, 3 or 1, and the side of its square cells, from what one cell has in all."""
    for channels in (3, 1):
        side = math.isqrt(width // channels)
        if channels * side * side == width:
            return channels, side
    raise UnsupportedArchitectureError(
        f"{where}: expected a T2I-Adapter for RGB or grey in square cells, got {width} channels"
    )
