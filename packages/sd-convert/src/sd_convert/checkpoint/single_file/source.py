"""A network inside a single file, as a source of weights under the names of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sd_convert.checkpoint.tensors import TensorEntry
from sd_convert.checkpoint.weights import LazyWeights, open_weights

from .clip import clip_tensors, open_clip_tensors
from .detect import Place, averaged_name
from .unet import unet_tensors
from .vae import vae_tensors

_BARE_UNET: Final = Place("unet", "", "unet")
#: What the names of a UNet in a file of its own, without a prefix, start with.
_UNET_MODULES: Final = (
    "time_embed.",
    "label_emb.",
    "input_blocks.",
    "middle_block.",
    "output_blocks.",
    "out.",
)


@dataclass(frozen=True, slots=True)
class InSingleFile:
    """The network at ``place`` in ``file``."""

    file: Path
    place: Place

    @property
    def files(self) -> tuple[Path, ...]:
        """That one file."""
        return (self.file,)

    def open(self) -> LazyWeights:
        """Map the file and rename, see :class:`sd_convert.checkpoint.sources.Source`."""
        entries = open_weights([self.file]).entries
        return LazyWeights(network_tensors(entries, self.place, where=str(self.file)))


def original_tensors(entries: Mapping[str, TensorEntry], place: Place) -> dict[str, TensorEntry]:
    """The network's tensors under the names of the original layout, without the prefix."""
    averaged = place.layout == "unet_ema"
    beginnings = _UNET_MODULES if place == _BARE_UNET else (place.prefix,)
    return {
        name.removeprefix(place.prefix): entries[averaged_name(name)] if averaged else entry
        for name, entry in entries.items()
        if name.startswith(beginnings)
    }


def network_tensors(
    entries: Mapping[str, TensorEntry], place: Place, *, where: str
) -> dict[str, TensorEntry]:
    """The network's tensors under the names of diffusers and transformers.

    Raises:
        UnsupportedArchitectureError: a tensor that the network does not have.
    """
    part = original_tensors(entries, place)
    if place.layout in ("unet", "unet_ema"):
        return unet_tensors(part, where=where)
    if place.layout == "vae":
        return vae_tensors(part, where=where)
    if place.layout == "clip":
        return clip_tensors(part)
    return open_clip_tensors(part, penultimate=place.layout == "open_clip_penultimate", where=where)
