"""Tokens behind the vocabulary, as textual inversion adds them.

Ids of transformers, and several vectors a token.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sd_tokenize import ClipTokenizer, TokenizerError

START, END = "<|startoftext|>", "<|endoftext|>"
LETTERS = [chr(number) for number in range(33, 127)]
TOKENS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), START, END]
FLAGS = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": False}


def write(folder: Path, added: dict[str, int], *, declared: str = "added_tokens") -> Path:
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(TOKENS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config: dict[str, object] = {
        "model_max_length": 77,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
    }
    if declared == "decoder":
        roles = {str(TOKENS.index(t)): {"content": t, **FLAGS, "special": True} for t in (START, END)}
        new = {str(index): {"content": token, **FLAGS} for token, index in added.items()}
        config["added_tokens_decoder"] = roles | new
    else:
        (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def words(tokenizer: ClipTokenizer, text: str) -> list[int]:
    ids = tokenizer.encode(text).ids
    return list(ids[1 : ids.index(tokenizer.eos_id)])


PROMPTS = [
    "a style b",
    "style",
    "Style,style",
    "astyle b",
    "a <cat-toy> b",
    "MyToken mytoken",
    "style_1x",
    "no",
]
ADDED = {"style": 190, "<cat-toy>": 191, "MyToken": 192}


@pytest.mark.parametrize("declared", ["added_tokens", "decoder"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_are_those_of_transformers(declared: str, prompt: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = ClipTokenizer.from_folder(write(tmp_path, ADDED, declared=declared))
    (tmp_path / "plain").mkdir()
    # before release 5, CLIPTokenizer was the slow one, which does not normalise what it finds added tokens in
    fast = getattr(transformers, "CLIPTokenizerFast", transformers.CLIPTokenizer)
    theirs = fast.from_pretrained(str(write(tmp_path / "plain", {})))
    assert theirs.add_tokens(list(ADDED)) == len(ADDED)
    expected = theirs(prompt, padding="max_length", max_length=77, truncation=True).input_ids
    assert list(ours.encode(prompt).ids) == expected


@pytest.mark.parametrize("declared", ["added_tokens", "decoder"])
def test_a_token_of_several_vectors(declared: str, tmp_path: Path) -> None:
    added = {"style": 190, "style_1": 191, "style_2": 192, "other": 193}
    tokenizer = ClipTokenizer.from_folder(write(tmp_path, added, declared=declared))
    a = TOKENS.index("a</w>")
    assert words(tokenizer, "a style a other") == [a, 190, 191, 192, a, 193]
    assert words(tokenizer, "style style") == [190, 191, 192] * 2
    assert words(tokenizer, "style style_1 style_2 a") == [190, 191, 192, a]
    assert words(tokenizer, "style_1") == [191]


def test_vectors_that_do_not_fit(tmp_path: Path) -> None:
    added = {"style": 190} | {f"style_{n}": 190 + n for n in range(1, 10)}
    encoded = ClipTokenizer.from_folder(write(tmp_path, added)).encode("a " * 70 + "style b")
    assert encoded.ids[71:76] == (190, 191, 192, 193, 194)
    assert encoded.truncated == "style b"


@pytest.mark.parametrize("index", [189, 191, 49408])
def test_an_id_that_does_not_follow(index: int, tmp_path: Path) -> None:
    with pytest.raises(
        TokenizerError, match=f"added token 'style' at id 190, behind the others, got {index}"
    ):
        ClipTokenizer.from_folder(write(tmp_path, {"style": index}))
