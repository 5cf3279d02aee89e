"""What weights are, as one number: equal for equal weights, another for any change.

A digest is the sha256 over the names, dtypes and shapes of the tensors, and over what each follows from: its
place in its file, the bytes of that file which any of them has, and whatever is computed from them (a merged
LoRA with its scale). So each byte is read once, from front to back, and those of other networks in the same
file are not.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sd_bundle import FileHashes

from .weights import LazyWeights

_VERSION: Final = 2  # of what a digest is made of


def digest(weights: LazyWeights, hash_file: FileHashes | None = None) -> str:
    """The sha256 of ``weights`` in hexadecimal digits; ``hash_file`` may remember what was hashed before.

    Example: ``digest(open_weights([Path("unet.safetensors")]))``.
    """
    hash_file = hash_file or FileHashes()
    spans: defaultdict[Path, list[tuple[int, int]]] = defaultdict(list)

    def note(file: Path, start: int, stop: int) -> str:
        spans[file].append((start, stop))
        return ""

    for entry in weights.entries.values():
        entry.identity(note)
    hashes = {file: hash_file(file, tuple(_joined(parts))) for file, parts in spans.items()}
    rows = [
        [name, entry.dtype, list(entry.shape), entry.identity(lambda file, *_: hashes[file])]
        for name, entry in sorted(weights.entries.items())
    ]
    return hashlib.sha256(json.dumps([_VERSION, rows]).encode()).hexdigest()


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes in order, in as few pieces as possible."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
