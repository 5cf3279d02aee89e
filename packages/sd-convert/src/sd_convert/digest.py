"""What weights are, as one number: equal for equal weights, another for any change.

A digest is the sha256 over the names, dtypes and shapes of the tensors, and over what each follows from: the
sha256 of its file and its place there, and whatever is computed from it (a merged LoRA with its scale). So a
file is read once, from front to back, and its sha256 is the one that the hub and model sites publish.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sd_bundle import FileHashes

from .weights import LazyWeights

_VERSION: Final = 1  # of what a digest is made of


def digest(weights: LazyWeights, hash_file: Callable[[Path], str] | None = None) -> str:
    """The sha256 of ``weights`` in hexadecimal digits; ``hash_file`` is, for instance, a :class:`FileHashes`.

    Example: ``digest(open_weights([Path("unet.safetensors")]))``.
    """
    hash_file = hash_file or FileHashes()
    rows = [
        [name, entry.dtype, list(entry.shape), entry.identity(hash_file)]
        for name, entry in sorted(weights.entries.items())
    ]
    return hashlib.sha256(json.dumps([_VERSION, rows]).encode()).hexdigest()
