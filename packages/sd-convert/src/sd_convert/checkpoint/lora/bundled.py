"""Embeddings that a LoRA file brings along: the vectors of the words that it was trained with.

Source: ``load_network`` in AUTOMATIC1111's extensions-builtin/Lora/networks.py, which makes them available to
prompts as if they were files of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sd_convert.checkpoint.checkpoint import TOKENIZERS, Checkpoint
from sd_convert.checkpoint.embeddings import Embedding, with_embeddings
from sd_convert.checkpoint.weights import open_weights
from sd_convert.errors import CheckpointError, OptionsError

#: The name, which may have dots, and the part: ``clip_l``, ``clip_g``, ``string_to_param.*``, ...
_NAME: Final = re.compile(r"(bundle_emb\.(?P<name>.+?)\.)(?:string_to_\w+\..+|[^.]+)", re.DOTALL)


def is_bundled(name: str) -> bool:
    """Whether a tensor of a LoRA file is one of an embedding, and none of the LoRA."""
    return _NAME.fullmatch(name) is not None


def with_bundled_embeddings(
    checkpoint: Checkpoint, loras: Sequence[Path], own: Sequence[Embedding]
) -> Checkpoint:
    """``checkpoint`` with the embeddings in the files ``loras``, and a note about each of them.

    Whoever gives a LoRA has not chosen its embeddings: one that cannot be used, or whose name is that of one
    of the user's ``own``, is left out, and the note says why.

    Raises:
        CheckpointError: a file is malformed.
    """
    if not any(folder in checkpoint.sources for folder in TOKENIZERS):
        return checkpoint
    named = {embedding.name for embedding in own}
    for file in dict.fromkeys(loras):
        for name, prefix in _find(file).items():
            where = f"{file}: its embedding {name!r}"
            if name in named:
                note = f"{where} gives way to the one that was given by itself"
            else:
                try:
                    checkpoint = with_embeddings(checkpoint, [Embedding(name, file, prefix)])
                    note = f"{where} is added: prompts may use that word"
                except (CheckpointError, OptionsError) as error:
                    note = f"{where} is not used: {error}"
            checkpoint = replace(checkpoint, notes=(*checkpoint.notes, note))
    return checkpoint


def _find(file: Path) -> dict[str, str]:
    """The embeddings in a file by name, each with what the names of its tensors begin with."""
    matches = (_NAME.fullmatch(name) for name in open_weights([file]).entries)
    return {match["name"]: match[1] for match in matches if match}
