"""The tokenizer of a single file, which has none itself: every family has CLIP's vocabulary."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from sd_convert.errors import CheckpointNotFoundError, IncompleteCheckpointError

from .checkpoint import TOKENIZER_FILES, TOKENIZERS
from .folder import tokenizer_files
from .hub import Hub, is_repository_id

STANDARD: Final = "openai/clip-vit-large-patch14"
_VOCABULARY: Final = (("vocab.json", "merges.txt"), ("tokenizer.json",))


def find_tokenizers(
    source: str | Path | None, folders: Collection[str], hub: Hub
) -> dict[str, tuple[Path, ...]]:
    """The files of each of ``folders`` (``tokenizer``, ``tokenizer_2``) in a folder or repository.

    ``source`` is a checkpoint in diffusers format, or a tokenizer by itself, of which only the vocabulary is
    taken, because the padding differs between families. None is CLIP's own on the hub.

    Raises:
        CheckpointNotFoundError: there is no such folder or repository, or it cannot be reached.
        IncompleteCheckpointError: it has no vocabulary.
    """
    if not folders:
        return {}
    root = _root(source, hub)
    return {folder: _files(root, folder) for folder in folders}


def _root(source: str | Path | None, hub: Hub) -> Path:
    if source is not None and Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    name = str(source or STANDARD)
    if not is_repository_id(name):
        raise CheckpointNotFoundError(
            f"tokenizer: {name}: expected a folder or a hub id (organisation/name), got nothing there"
        )
    patterns = [*TOKENIZER_FILES, *(f"{f}/{name}" for f in TOKENIZERS.values() for name in TOKENIZER_FILES)]
    try:
        return hub.repository(name).fetch(patterns)
    except CheckpointNotFoundError as error:
        raise CheckpointNotFoundError(
            f"tokenizer: a single file has none, so that of {name} is needed: go online once, or give a "
            f"folder with vocab.json and merges.txt (--tokenizer): {error}"
        ) from error


def _files(root: Path, folder: str) -> tuple[Path, ...]:
    own = tokenizer_files(root / folder)
    if own:
        return own
    for names in _VOCABULARY:
        files = tuple(root / name for name in names)
        if all(file.is_file() for file in files):
            return files
    raise IncompleteCheckpointError(
        f"tokenizer: {root}: expected vocab.json and merges.txt, or tokenizer.json, there or in {folder}, "
        "got none"
    )
