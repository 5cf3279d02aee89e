"""Writes a tokenizer in CLIP's own file format whose merges know the words of the captions."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from sdc.demo.captions import COLOURS, SHAPES

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = ("a", "an", "on", "background", "of", "the", "with", "and", "picture", *COLOURS, *SHAPES)


def byte_alphabet() -> list[str]:
    """CLIP's 256 printable stand-ins for bytes, in the order of its vocabulary."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(rest))]


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Merge the most frequent pair (then the first in order) until every word is one token."""
    spellings = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while any(len(spelling) > 1 for spelling in spellings):
        counts: dict[tuple[str, str], int] = {}
        for spelling in spellings:
            for pair in itertools.pairwise(spelling):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spellings = [_merge(spelling, best) for spelling in spellings]
    return merges


def _merge(spelling: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    index = 0
    while index < len(spelling):
        if tuple(spelling[index : index + 2]) == pair:
            merged.append(pair[0] + pair[1])
            index += 2
        else:
            merged.append(spelling[index])
            index += 1
    return merged


def write_tokenizer(folder: Path) -> None:
    """Write vocab.json, merges.txt and the two config files that CLIPTokenizer reads."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = byte_alphabet()
    merges = learn_merges(WORDS)
    tokens = [*alphabet, *(character + "</w>" for character in alphabet), *("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate([*dict.fromkeys(tokens), START, END])}
    special = {
        name: {
            "content": token,
            "lstrip": False,
            "normalized": normalized,
            "rstrip": False,
            "single_word": False,
        }
        for name, token, normalized in (
            ("bos_token", START, True),
            ("eos_token", END, True),
            ("unk_token", END, True),
        )
    }
    config = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": END,
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps({**special, "pad_token": END}, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
