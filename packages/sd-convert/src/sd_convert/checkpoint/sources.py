"""Where the weights of a network come from: a value that opens them, as often as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .weights import LazyWeights, open_weights


class Source(Protocol):
    """Opens the weights of one network under the names of diffusers and transformers."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The checkpoint's own files that the network is in, without those of what was merged into it."""
        ...

    def open(self) -> LazyWeights:
        """The tensors, mapped or to be computed when they are read.

        Raises:
            CheckpointError: a file is missing, truncated or malformed, or does not fit.
        """
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """safetensors files, the shards of one network, whose names are right as they are."""

    files: tuple[Path, ...]

    def open(self) -> LazyWeights:
        """Map the files, see :class:`Source`."""
        return open_weights(self.files)
