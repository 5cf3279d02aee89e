"""Textual inversion: vectors from a file as new tokens of a checkpoint's tokenizers and text encoders.

Forms: one tensor under any name (``emb_params`` and ``string_to_param.*`` of A1111, ``<token>`` of
diffusers), and for SDXL one for each encoder (``clip_l``, ``clip_g``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sd_convert.errors import CheckpointError, IncompleteCheckpointError, OptionsError, WeightsMismatchError

from .changed import RowsAppended
from .checkpoint import TOKENIZERS, Checkpoint
from .documents import read_json
from .sources import Source
from .tensors import LazyTensor, TensorEntry
from .weights import LazyWeights, open_weights

_TABLE: Final = "embeddings.token_embedding.weight"
_KEYS: Final = {
    "text_encoder": ("clip_l", "text_encoders_0"),
    "text_encoder_2": ("clip_g", "text_encoders_1"),
}
_BASES: Final = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "SDXL's second encoder"}
_FLAGS: Final = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
_LEGACY_EOS: Final = 2


@dataclass(frozen=True, slots=True)
class Embedding:
    """An embedding to add: prompts that have ``name`` get the vectors in ``file``.

    ``prefix``: what the names of its tensors begin with, in a file that has others too.
    """

    name: str
    file: Path
    prefix: str = ""

    def __post_init__(self) -> None:
        """Refuse names that no prompt can have."""
        if not self.name or any(character.isspace() for character in self.name):
            raise OptionsError(f"embedding: expected a name without spaces, got {self.name!r}")


@dataclass(frozen=True, slots=True)
class WithEmbeddings:
    """The text encoder ``folder`` of ``base`` with more tokens, see :class:`.sources.Source`."""

    base: Source
    folder: str
    embeddings: tuple[Embedding, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of ``base``."""
        return self.base.files

    def open(self) -> LazyWeights:
        """The tensors, with the vectors below the table of the tokens."""
        entries = dict(self.base.open().entries)
        name = _table(entries, self.folder)
        rows = [vectors(embedding, self.folder, entries[name]) for embedding in self.embeddings]
        return LazyWeights({**entries, name: RowsAppended(entries[name], tuple(rows))})


def with_embeddings(checkpoint: Checkpoint, embeddings: Sequence[Embedding]) -> Checkpoint:
    """``checkpoint`` with a token for each vector of ``embeddings``, in the text encoders that were opened.

    Raises:
        OptionsError: a name that the tokenizer has, or that another embedding needs for its further vectors.
        WeightsMismatchError: vectors of another width than the text encoder's, or none for one of them.
        CheckpointError: a file is malformed, or the tokenizer and the text encoder contradict each other.
    """
    if not embeddings:
        return checkpoint
    for folder in TOKENIZERS:
        if folder in checkpoint.sources:
            checkpoint = _extend(checkpoint, folder, tuple(embeddings))
    return checkpoint


def _extend(checkpoint: Checkpoint, folder: str, embeddings: tuple[Embedding, ...]) -> Checkpoint:
    entries = checkpoint.sources[folder].open().entries
    table = entries[_table(entries, folder)]
    counts = {e.name: vectors(e, folder, table).shape[0] for e in embeddings}
    if len(counts) != len(embeddings):
        raise OptionsError("embedding: expected each name once, got one twice")
    first = table.shape[0]
    names = [name for token, count in counts.items() for name in _names(token, count)]
    tokens = {name: first + index for index, name in enumerate(names)}
    if len(tokens) != len(names):
        raise OptionsError(
            f"embedding: expected names that differ in more than a number at the end, got {', '.join(counts)}"
        )
    made, end = _tokenizer_files(checkpoint, TOKENIZERS[folder], tokens, first)
    config = {**checkpoint.config(folder), "vocab_size": first + len(tokens)}
    if (
        config.get("eos_token_id") == _LEGACY_EOS
    ):  # of old configs: "where the highest id is", no more the end
        config["eos_token_id"] = end
    source = WithEmbeddings(checkpoint.sources[folder], folder, embeddings)
    return replace(
        checkpoint,
        configs={**checkpoint.configs, folder: config},
        sources={**checkpoint.sources, folder: source},
        made_files={**checkpoint.made_files, **made},
    )


def _names(token: str, count: int) -> list[str]:
    """``style``, ``style_1``, ...: the names that diffusers gives to several vectors."""
    return [token, *(f"{token}_{index}" for index in range(1, count))]


def _table(entries: Mapping[str, LazyTensor], folder: str) -> str:
    for name, entry in entries.items():
        if name.endswith(_TABLE) and len(entry.shape) == 2:
            return name
    raise IncompleteCheckpointError(f"{folder}: expected a matrix {_TABLE}, got none")


def vectors(embedding: Embedding, folder: str, table: LazyTensor) -> TensorEntry:
    """The vectors (number, width) of an embedding for one text encoder.

    Raises:
        WeightsMismatchError: there are none, or they are of another width than ``table``'s.
    """
    entries = _tensors(embedding)
    found = [entries[key] for key in _KEYS[folder] if key in entries]
    others = [key for keys in _KEYS.values() for key in keys if key in entries]
    if not found and not others and len(entries) == 1:
        found = list(entries.values())
    if not found:
        raise WeightsMismatchError(
            f"{embedding.file}: expected vectors for {folder} ({_KEYS[folder][0]}, or one tensor alone), "
            f"got {', '.join(list(entries)[:4])}"
        )
    entry, width = found[0], table.shape[1]
    if len(entry.shape) not in (1, 2) or entry.shape[-1] != width or 0 in entry.shape:
        base = _BASES.get(entry.shape[-1] if entry.shape else 0, "another model")
        raise WeightsMismatchError(
            f"{embedding.file}: expected vectors of {width} numbers for {folder}, got {list(entry.shape)}: "
            f"the embedding is for {base}"
        )
    return entry.reshaped((math.prod(entry.shape[:-1]), width))


def _tensors(embedding: Embedding) -> dict[str, TensorEntry]:
    """Those of the embedding; of what AUTOMATIC1111 saves, ``string_to_param`` has the vectors."""
    entries = {
        name.removeprefix(embedding.prefix): entry
        for name, entry in open_weights([embedding.file]).entries.items()
        if name.startswith(embedding.prefix)
    }
    return {name: e for name, e in entries.items() if name.startswith("string_to_param.")} or entries


def _tokenizer_files(
    checkpoint: Checkpoint, folder: str, tokens: Mapping[str, int], first: int
) -> tuple[dict[str, bytes], int]:
    """The tokenizer's files with ``tokens``, and the id of the token that ends a prompt."""
    documents = _documents(checkpoint, folder)
    known = _known_tokens(documents)
    if (taken := next((token for token in tokens if token in known), None)) is not None:
        raise OptionsError(f"embedding: expected a name that is no token yet, got {taken!r}: choose another")
    if max(known.values(), default=-1) + 1 != first:
        raise CheckpointError(
            f"{checkpoint.name}/{folder}: expected as many tokens as the text encoder has vectors, {first}, "
            f"got {max(known.values(), default=-1) + 1}"
        )
    config = documents.get("tokenizer_config.json", {})
    documents["added_tokens.json"] = {**documents.get("added_tokens.json", {}), **tokens}
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        new = {str(index): {"content": token, **_FLAGS} for token, index in tokens.items()}
        documents["tokenizer_config.json"] = {**config, "added_tokens_decoder": {**decoder, **new}}
    whole = documents.get("tokenizer.json")
    if whole is not None:
        listed = whole.get("added_tokens")
        more = [{"id": index, "content": token, **_FLAGS} for token, index in tokens.items()]
        documents["tokenizer.json"] = {**whole, "added_tokens": [*(listed or ()), *more]}
    end = config.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    files = ("added_tokens.json", "tokenizer_config.json", "tokenizer.json")
    made = {
        f"{folder}/{name}": json.dumps(documents[name], ensure_ascii=False, indent=2).encode()
        for name in files
        if name in documents
    }
    return made, known.get(end if isinstance(end, str) else "<|endoftext|>", first - 1)


def _documents(checkpoint: Checkpoint, folder: str) -> dict[str, dict[str, Any]]:
    """The tokenizer's JSON files by name, those that were made here in place of those on disk."""
    files = checkpoint.tokenizers.get(folder, ())
    if not files:
        raise IncompleteCheckpointError(f"{checkpoint.name}: expected a folder {folder}, got none")
    documents = {file.name: read_json(file) for file in files if file.suffix == ".json"}
    for path, content in checkpoint.made_files.items():
        if Path(path).parent == Path(folder):
            documents[Path(path).name] = json.loads(content)
    return documents


def _known_tokens(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    model = documents.get("tokenizer.json", {}).get("model")
    vocabularies = (
        model.get("vocab") if isinstance(model, dict) else None,
        documents.get("vocab.json"),
        documents.get("added_tokens.json"),
    )
    return {
        token: index
        for vocabulary in vocabularies
        if isinstance(vocabulary, dict)
        for token, index in vocabulary.items()
        if type(index) is int
    }
