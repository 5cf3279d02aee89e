"""Which tokens are special, and how long a prompt may be: ``tokenizer_config.json`` and its neighbours.

The rules are those of ``transformers.PreTrainedTokenizerBase._from_pretrained``: where tokenizer_config.json
has an ``added_tokens_decoder``, it is the whole truth; where it has none (checkpoints of 2022 and 2023),
``special_tokens_map.json`` wins over it. This decides the padding token, which is ``<|endoftext|>`` in SD 1.x
and ``!`` in SD 2.x and in the second tokenizer of SDXL.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sd_tokenize.errors import TokenizerError
from sd_tokenize.files import read_json

Role = Literal["bos_token", "eos_token", "unk_token", "pad_token"]

#: What ``transformers.CLIPTokenizer`` assumes where a folder does not say.
DEFAULTS: Mapping[Role, str] = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}

#: Positions of every CLIP text encoder.
CLIP_MAX_LENGTH = 77

#: The yes-or-no fields of an added token.
FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is found in the text before anything else: the fields of ``tokenizers.AddedToken``."""

    content: str
    special: bool = True
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens with a role, every token that is matched whole, and the length of an encoded prompt.

    ``ids`` are those of added tokens that their file tells: the vocabulary itself may lack them.
    """

    roles: Mapping[Role, str]
    added: tuple[AddedToken, ...]
    max_length: int
    ids: Mapping[str, int] = field(default_factory=dict)


def read_special_tokens(folder: Path) -> SpecialTokens:
    """Special tokens of a tokenizer folder; CLIP's own where no file names them.

    Raises:
        TokenizerError: a config file is malformed, or asks for padding on the left.
    """
    config = dict(_read_optional(folder / "tokenizer_config.json"))
    decoder = config.get("added_tokens_decoder")
    if decoder is None:
        config.update(_read_optional(folder / "special_tokens_map.json"))
    declared = _undeclared(folder) if decoder is None else _listed(_values(decoder), "added_tokens_decoder")
    if config.get("padding_side", "right") != "right":
        raise TokenizerError(f"expected padding_side 'right' in {folder}, got {config['padding_side']!r}")
    tokens = {role: _token(config.get(role) or default, role) for role, default in DEFAULTS.items()}
    return SpecialTokens(
        roles={role: token.content for role, token in tokens.items()},
        added=_without_repeats([*declared, *tokens.values()]),
        max_length=_max_length(config.get("model_max_length", CLIP_MAX_LENGTH)),
        ids=_told_ids(folder) if decoder is None else _decoder_ids(decoder),
    )


def _read_optional(path: Path) -> Mapping[str, object]:
    return read_json(path) if path.is_file() else {}


def _undeclared(folder: Path) -> list[AddedToken]:
    """Added tokens of a folder whose tokenizer_config.json does not declare them."""
    listed = _listed(_read_optional(folder / "tokenizer.json").get("added_tokens", []), "tokenizer.json")
    names = _read_optional(folder / "added_tokens.json")
    return [*listed, *(AddedToken(name, special=False, normalized=True) for name in names)]


def _told_ids(folder: Path) -> dict[str, int]:
    """Ids out of tokenizer.json and added_tokens.json."""
    listed = _read_optional(folder / "tokenizer.json").get("added_tokens", [])
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    pairs = [(entry.get("content"), entry.get("id")) for entry in entries]
    return _checked([*pairs, *_read_optional(folder / "added_tokens.json").items()])


def _decoder_ids(decoder: object) -> dict[str, int]:
    """Ids out of ``{"49408": {"content": "<style>", ...}}``."""
    entries = decoder.items() if isinstance(decoder, dict) else ()
    return _checked(
        (
            entry.get("content") if isinstance(entry, dict) else entry,
            int(index) if index.isdecimal() and len(index) <= _MOST_DIGITS else None,
        )
        for index, entry in entries
    )


#: Of a token's id; ids are 32-bit numbers.
_MOST_DIGITS = 10


def _checked(pairs: Iterable[tuple[object, object]]) -> dict[str, int]:
    return {token: index for token, index in pairs if isinstance(token, str) and type(index) is int}


def _values(decoder: object) -> list[object]:
    if not isinstance(decoder, dict):
        raise TokenizerError(f"expected an object as added_tokens_decoder, got {type(decoder).__name__}")
    return list(decoder.values())


def _listed(entries: object, where: str) -> list[AddedToken]:
    if not isinstance(entries, list):
        raise TokenizerError(f"expected a list of added tokens in {where}, got {type(entries).__name__}")
    return [_token(entry, where) for entry in entries]


def _token(entry: object, where: str) -> AddedToken:
    if isinstance(entry, str) and entry:
        return AddedToken(entry)
    if isinstance(entry, dict) and isinstance(entry.get("content"), str) and entry["content"]:
        flags = {name: entry[name] for name in FLAGS if name in entry}
        if all(isinstance(value, bool) for value in flags.values()):
            return AddedToken(entry["content"], **flags)
    raise TokenizerError(f"expected a token or an object with its content as {where}, got {entry!r}")


def _without_repeats(tokens: Iterable[AddedToken]) -> tuple[AddedToken, ...]:
    """The first of each content: what added_tokens_decoder declares comes before what the roles imply."""
    first: dict[str, AddedToken] = {}
    for token in tokens:
        first.setdefault(token.content, token)
    return tuple(first.values())


def _max_length(value: object) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value > 1e6:  # transformers writes 1e30 for "not set"
            return CLIP_MAX_LENGTH
        if math.isfinite(value) and value == int(value) and value >= 2:
            return int(value)
    raise TokenizerError(f"expected model_max_length of at least 2 (start and end), got {value!r}")
