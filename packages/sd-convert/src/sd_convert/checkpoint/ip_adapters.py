"""IP-Adapters' projections of image tokens, as weights of the UNet that they were trained beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sd_convert.errors import IncompleteCheckpointError, OptionsError

from .checkpoint import Checkpoint
from .single_file.ip_adapter import ATTENTIONS, IPAdapterFile
from .sources import Source
from .weights import LazyWeights

#: The key that the UNet's config has beside IP-Adapters: how many image tokens each of them gives.
IMAGE_TOKENS_KEY: Final = "ip_adapter_image_tokens"
MOST_IP_ADAPTERS: Final = 8
_UNET: Final = "unet"


@dataclass(frozen=True, slots=True)
class _WithIPAdapters:
    """A UNet's weights, and beside them those of adapters, numbered."""

    base: Source
    adapters: tuple[Source, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The UNet's own."""
        return self.base.files

    def open(self) -> LazyWeights:
        """All of them, see :class:`sd_convert.checkpoint.sources.Source`."""
        added = {
            f"{ATTENTIONS}{number}.{name}": entry
            for number, adapter in enumerate(self.adapters)
            for name, entry in adapter.open().entries.items()
        }
        return LazyWeights({**self.base.open().entries, **added})


def with_image_attention(checkpoint: Checkpoint, adapters: Sequence[tuple[Path, int]]) -> Checkpoint:
    """``checkpoint`` with a UNet that attends to the images of IP-Adapters, in their order.

    ``adapters``: the file of each, and how many tokens it makes of an image. The UNet gets an input
    ``ip_hidden_states_N`` (B, D, 1, tokens) for each, and ``ip_adapter_scale`` (B, adapters): with zeros it
    predicts what it predicted before. What makes the tokens is a component of its own, which has the file.

    Raises:
        OptionsError: more of them than a UNet takes, or it has some already.
        IncompleteCheckpointError: the checkpoint was opened without its UNet.
    """
    config = checkpoint.config(_UNET)
    if len(adapters) > MOST_IP_ADAPTERS or IMAGE_TOKENS_KEY in config:
        raise OptionsError(
            f"expected up to {MOST_IP_ADAPTERS} IP-Adapters at once, got {len(adapters)}, or a UNet with some"
        )
    if _UNET not in checkpoint.sources:
        raise IncompleteCheckpointError(
            f"{checkpoint.name}: expected its UNet beside IP-Adapters, got "
            f"{', '.join(checkpoint.components)} opened"
        )
    files = tuple(IPAdapterFile(file, ATTENTIONS) for file, _ in adapters)
    tokens = [count for _, count in adapters]
    return replace(
        checkpoint,
        configs={**checkpoint.configs, _UNET: {**config, IMAGE_TOKENS_KEY: tokens}},
        sources={**checkpoint.sources, _UNET: _WithIPAdapters(checkpoint.sources[_UNET], files)},
    )
