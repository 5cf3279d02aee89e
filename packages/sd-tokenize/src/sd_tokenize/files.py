"""The tokenizer folder of a diffusers checkpoint, read into plain values.

Files are untrusted: sizes are bounded, every value is checked before it is used, nothing outside the folder
is opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sd_tokenize.errors import TokenizerError

#: CLIP's own vocab.json is 1.1 MB and its tokenizer.json 2.2 MB.
MAX_FILE_BYTES = 64 * 2**20

Merges = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Byte-pair encoding as data: the id of every token, and the merges in order of rank."""

    ids: Mapping[str, int]
    merges: Merges


def read_vocabulary(folder: Path) -> Vocabulary:
    """Vocabulary of ``vocab.json`` + ``merges.txt``, or else of ``tokenizer.json``.

    Raises:
        TokenizerError: neither is there, or one of them is malformed.
    """
    if (folder / "vocab.json").is_file():
        return Vocabulary(
            _ids(read_json(folder / "vocab.json"), "vocab.json"), _read_merges(folder / "merges.txt")
        )
    if (folder / "tokenizer.json").is_file():
        return _from_tokenizer_json(read_json(folder / "tokenizer.json"))
    raise TokenizerError(
        f"expected vocab.json and merges.txt, or tokenizer.json, in {folder}; got {_listing(folder)}: "
        "give the tokenizer folder of a checkpoint or bundle"
    )


def read_json(path: Path) -> Mapping[str, object]:
    """The JSON object in ``path``.

    Raises:
        TokenizerError: it is too large, not UTF-8, not JSON, or not an object.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise TokenizerError(f"expected JSON in {path}, got {error}: is the file complete?") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"expected a JSON object in {path}, got {type(content).__name__}")
    return content


def read_text(path: Path) -> str:
    """The UTF-8 text in ``path``, with its size checked first."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise TokenizerError(f"expected at most {MAX_FILE_BYTES} bytes in {path}, got {size}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TokenizerError(f"expected a readable file {path}, got {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"expected UTF-8 text in {path}, got {error.reason} at byte {error.start}"
        ) from error


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    return ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "an empty folder"


def _ids(content: object, where: str) -> Mapping[str, int]:
    if not isinstance(content, dict) or not content:
        raise TokenizerError(f"expected an object of token: id in {where}, got {str(content)[:40]!r}")
    for token, index in content.items():
        if type(index) is not int or not 0 <= index < 2**31:
            raise TokenizerError(f"expected a token id in [0, 2**31) in {where}, got {index!r} for {token!r}")
    if len(set(content.values())) != len(content):
        raise TokenizerError(f"expected one token per id in {where}, got an id that two tokens share")
    return content


def _read_merges(path: Path) -> Merges:
    """Merges as OpenAI wrote them: a ``#version`` line, then one pair a line, best rank first."""
    lines = read_text(path).split("\n")  # not splitlines: a token may be a line separator
    if lines and lines[0].startswith("#version"):
        lines[0] = ""
    return tuple(_pair(line.split(" "), f"{path}, line {n}") for n, line in enumerate(lines, 1) if line)


def _pair(parts: object, where: str) -> tuple[str, str]:
    match parts:
        case [str(left), str(right)] if left and right:
            return left, right
    raise TokenizerError(f"expected two tokens to merge in {where}, got {parts!r}")


def _from_tokenizer_json(content: Mapping[str, object]) -> Vocabulary:
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise TokenizerError('expected a model of type "BPE" in tokenizer.json: CLIP has no other')
    merges = model.get("merges")
    if not isinstance(merges, Sequence) or isinstance(merges, str):
        raise TokenizerError(f"expected a list of merges in tokenizer.json, got {type(merges).__name__}")
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    ids = _ids(model.get("vocab"), "tokenizer.json, model.vocab")
    return Vocabulary(ids, tuple(_pair(pair, f"tokenizer.json, merge {n}") for n, pair in enumerate(pairs)))
